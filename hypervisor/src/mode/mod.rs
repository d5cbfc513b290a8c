//! The modes and the front before them.
//!
//! Order: [`Hypervisor::new`], [`Hypervisor::add`] for each mode that this build has a backend
//! for, then VMs: [`Hypervisor::create_vm`], [`HypervisorMode::create_vcpu`], start, and
//! [`Vcpu::run`] in a thread of each vCPU's own; stop, destroy.
//!
//! [`HypervisorMode`] is the proposal's trait with two repairs: it takes `&self`, and a vCPU is a
//! handle that moves to its own thread, so that two vCPUs run at once; and what a mode is lent (a
//! backend, a host) is a type of its own, so that nothing of it is known here.

mod error;
mod front;
mod kind;
mod lend;
#[cfg(test)]
pub(crate) mod races;

pub use error::ModeError;
pub use front::{Hypervisor, Reason, Resolved};
pub use kind::{ModeKind, UnknownMode};
pub use lend::LendError;

use crate::config::{VcpuConfig, VmConfig};
use crate::host::Clock;
use crate::memory::Perms;
pub use crate::vcpu::Ending as VcpuExit;
use crate::vm::{Ledger, Snapshot, VmId};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// What every mode gets when it is made.
#[derive(Clone)]
pub struct ModeConfig {
    /// Where its VMs are entered, together with those of the other modes.
    pub ledger: Arc<Ledger>,
    /// The clock of its accounting.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for ModeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModeConfig").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

/// What a mode can do, with the backend that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeCapabilities {
    /// Which mode.
    pub mode: ModeKind,
    /// The backend's name.
    pub backend: &'static str,
    /// vCPUs of a VM.
    pub max_vcpus: u32,
    /// Memory of a VM in bytes.
    pub max_memory: u64,
    /// Whether [`HypervisorMode::map_memory`] works.
    pub map_memory: bool,
    /// Whether [`HypervisorMode::inject_interrupt`] works.
    pub interrupts: bool,
    /// Whether a guest may itself be a hypervisor.
    pub nested: bool,
}

/// The number of a vCPU within its VM, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuId(
    /// The number.
    pub u32,
);

impl fmt::Display for VcpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range of guest-physical addresses that is to become RAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The addresses; page-aligned.
    pub range: Range<u64>,
    /// What the guest may do with them.
    pub perms: Perms,
}

/// A VM as a list of VMs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmInfo {
    /// Its number.
    pub id: VmId,
    /// Its mode.
    pub mode: ModeKind,
    /// Its name.
    pub name: String,
    /// Its state and accounts.
    pub snapshot: Snapshot,
}

/// A mode with a backend: makes VMs and vCPUs.
pub trait HypervisorMode: Send + Sync {
    /// What it is lent: its backend, and the host's resources.
    type Lent
    where
        Self: Sized;

    /// Makes the mode.
    ///
    /// # Errors
    /// If what it is lent does not do.
    fn init(config: &ModeConfig, lent: Self::Lent) -> Result<Self, ModeError>
    where
        Self: Sized;

    /// What it can do.
    fn capabilities(&self) -> ModeCapabilities;

    /// Makes a VM. Nothing of it runs yet.
    ///
    /// # Errors
    /// If the description is refused, or the host or the backend cannot provide it.
    fn create_vm(&self, config: VmConfig) -> Result<VmId, ModeError>;

    /// Lets a VM's vCPUs run.
    ///
    /// # Errors
    /// [`ModeError::Vm`].
    fn start_vm(&self, vm: VmId) -> Result<(), ModeError>;

    /// Ends a VM's run: each vCPU returns [`VcpuExit::Interrupted`] soon. A VM whose guest has
    /// ended is stopped already.
    ///
    /// # Errors
    /// [`ModeError::Vm`].
    fn stop_vm(&self, vm: VmId) -> Result<(), ModeError>;

    /// Gives everything back that is the VM's. A vCPU handle that somebody still holds keeps its
    /// memory until it is dropped.
    ///
    /// # Errors
    /// [`ModeError::Vm`].
    fn destroy_vm(&self, vm: VmId) -> Result<(), ModeError>;

    /// Makes a vCPU: a handle that may move to another thread. Each index once.
    ///
    /// # Errors
    /// If there is no such vCPU, or it has been made before.
    fn create_vcpu(&self, vm: VmId, config: VcpuConfig) -> Result<Box<dyn Vcpu>, ModeError>;

    /// Makes a range of guest-physical addresses RAM, beyond what the description gave.
    ///
    /// # Errors
    /// [`ModeError::Unsupported`] where guests of this mode cannot use it.
    fn map_memory(&self, vm: VmId, region: MemoryRegion) -> Result<(), ModeError>;

    /// Injects an interrupt.
    ///
    /// # Errors
    /// [`ModeError::Unsupported`] where guests of this mode take none.
    fn inject_interrupt(&self, vm: VmId, vcpu: VcpuId, vector: u32) -> Result<(), ModeError>;

    /// What is known of a VM.
    ///
    /// # Errors
    /// [`ModeError::Vm`].
    fn vm(&self, vm: VmId) -> Result<VmInfo, ModeError>;

    /// Its VMs, by number.
    fn vms(&self) -> Vec<VmInfo>;
}

/// A vCPU of a VM: the proposal's `run_vcpu` is its [`Vcpu::run`].
pub trait Vcpu: Send {
    /// Its VM.
    fn vm(&self) -> VmId;

    /// Its number.
    fn id(&self) -> VcpuId;

    /// Runs until the guest ends or is stopped. Exits in between are answered inside.
    ///
    /// # Errors
    /// If the VM is not running, or the backend fails.
    fn run(&mut self) -> Result<VcpuExit, ModeError>;
}
