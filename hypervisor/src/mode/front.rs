//! The front: one hypervisor with its modes, and which mode a VM gets.

use super::{HypervisorMode, ModeConfig, ModeError, ModeKind, VmInfo};
use crate::config::{HypervisorConfig, VmConfig};
use crate::detect::{DetectError, ImageKind, detect};
use crate::host::{Blob, Clock};
use crate::vm::{Ledger, Limits, VmError, VmId};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// A hypervisor.
///
/// Which mode a VM gets ([`Hypervisor::resolve`]):
/// 1. the one that its description names, by `mode` or by its own table; the image is not looked
///    at;
/// 2. else the one that its image is for ([`crate::detect`]);
/// 3. else, if it has no image or the image is of no known kind, the configured default.
///
/// An image that is recognised and cannot be used is refused, never given to the default mode.
pub struct Hypervisor {
    config: HypervisorConfig,
    mode_config: ModeConfig,
    /// By [`ModeKind`].
    modes: [Option<Arc<dyn HypervisorMode>>; 3],
}

/// A VM's mode, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolved {
    /// The mode.
    pub mode: ModeKind,
    /// Why.
    pub reason: Reason,
}

/// Why a VM has its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its description says so.
    Explicit,
    /// Its image is this.
    Image(ImageKind),
    /// Nothing says anything else.
    Default,
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = self.mode;
        match self.reason {
            Reason::Explicit => write!(f, "mode {mode}: the description names it"),
            Reason::Image(kind) => write!(f, "mode {mode}: the image is {kind}"),
            Reason::Default => write!(f, "mode {mode}: the default"),
        }
    }
}

impl Hypervisor {
    /// A hypervisor without modes.
    pub fn new(config: HypervisorConfig, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let mode_config = ModeConfig { ledger: Ledger::new(limits), clock };
        Self { config, mode_config, modes: [const { None }; 3] }
    }

    /// Makes a mode and adds it, in place of an earlier one of the same kind.
    ///
    /// # Errors
    /// As [`HypervisorMode::init`].
    pub fn add<M: HypervisorMode + 'static>(&mut self, lent: M::Lent) -> Result<(), ModeError> {
        let mode = M::init(&self.mode_config, lent)?;
        let kind = mode.capabilities().mode;
        self.modes[kind as usize] = Some(Arc::new(mode));
        Ok(())
    }

    /// What holds for all VMs.
    pub fn config(&self) -> HypervisorConfig {
        self.config
    }

    /// What all VMs use and may use.
    pub fn ledger(&self) -> &Ledger {
        &self.mode_config.ledger
    }

    /// The modes that have a backend, in the order of [`ModeKind::ALL`].
    pub fn available(&self) -> Vec<ModeKind> {
        self.modes.iter().flatten().map(|mode| mode.capabilities().mode).collect()
    }

    /// A mode.
    ///
    /// # Errors
    /// [`ModeError::NoBackend`].
    pub fn mode(&self, mode: ModeKind) -> Result<&Arc<dyn HypervisorMode>, ModeError> {
        let missing = || ModeError::NoBackend { mode, available: self.available() };
        self.modes[mode as usize].as_ref().ok_or_else(missing)
    }

    /// The mode that a VM gets, by the rule above; it may be one without a backend.
    ///
    /// # Errors
    /// [`ModeError::Detect`] if the image is refused or cannot be read.
    pub fn resolve(
        &self,
        config: &VmConfig,
        image: Option<&dyn Blob>,
    ) -> Result<Resolved, ModeError> {
        if let Some(mode) = config.explicit_mode() {
            return Ok(Resolved { mode, reason: Reason::Explicit });
        }
        let default = Resolved { mode: self.config.default_mode, reason: Reason::Default };
        let Some(image) = image else { return Ok(default) };
        match detect(image) {
            Ok(kind) => Ok(Resolved { mode: kind.mode(), reason: Reason::Image(kind) }),
            Err(DetectError::Unknown) => Ok(default),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a VM in the mode that it gets.
    ///
    /// # Errors
    /// As [`Hypervisor::resolve`], [`Hypervisor::mode`] and [`HypervisorMode::create_vm`].
    pub fn create_vm(
        &self,
        mut config: VmConfig,
        image: Option<&dyn Blob>,
    ) -> Result<VmId, ModeError> {
        let Resolved { mode, .. } = self.resolve(&config, image)?;
        config.validate(mode)?;
        config.mode = Some(mode);
        self.mode(mode)?.create_vm(config)
    }

    /// The mode that a VM is of.
    ///
    /// # Errors
    /// [`VmError::NoSuchVm`].
    pub fn mode_of(&self, vm: VmId) -> Result<&Arc<dyn HypervisorMode>, ModeError> {
        let has = |mode: &&Arc<dyn HypervisorMode>| mode.vm(vm).is_ok();
        Ok(self.modes.iter().flatten().find(has).ok_or(VmError::NoSuchVm(vm))?)
    }

    /// All VMs, by number.
    pub fn vms(&self) -> Vec<VmInfo> {
        let mut vms: Vec<_> = self.modes.iter().flatten().flat_map(|mode| mode.vms()).collect();
        vms.sort_by_key(|vm| vm.id);
        vms
    }
}

impl fmt::Debug for Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let modes = self.available();
        f.debug_struct("Hypervisor").field("config", &self.config).field("modes", &modes).finish()
    }
}
