//! What HVT mode asks a host for.

use crate::host::{Blob, BlockStore, Clock, Console, HostError, NetPort, Notices, WaitSet};
use crate::vm::VmId;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// A host that HVT mode can run guests on.
pub trait HvtHost: Send + Sync {
    /// Opens an image or a manifest.
    ///
    /// # Errors
    /// The host's.
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, HostError>;

    /// Begins a VM.
    ///
    /// # Errors
    /// The host's.
    fn session(&self, vm: VmId, name: &str) -> Result<Box<dyn HvtSession>, HostError>;
}

/// The host's side of one VM: first its devices, then [`HvtSession::lend`], once.
pub trait HvtSession: Send {
    /// Where failures of its devices are told, if the host has such a place.
    fn notices(&self) -> Option<Arc<dyn Notices>> {
        None
    }

    /// Opens a disk.
    ///
    /// # Errors
    /// The host's.
    fn block(&mut self, path: &str) -> Result<Box<dyn BlockStore>, HostError>;

    /// Opens a network for the device with this handle, which is its bit in the [`WaitSet`].
    ///
    /// # Errors
    /// The host's.
    fn net(
        &mut self,
        handle: u32,
        interface: &str,
        mac: Option<[u8; 6]>,
    ) -> Result<Box<dyn NetPort>, HostError>;

    /// Lends everything else. The wait set covers the networks opened so far.
    ///
    /// # Errors
    /// The host's.
    fn lend(&mut self) -> Result<Lent, HostError>;

    /// Runs `work` beside the vCPU, for the network ring. It is asked for only with backends that
    /// have doorbells.
    ///
    /// # Errors
    /// The host's; the VM's vCPU then cannot run.
    fn spawn(&self, work: Box<dyn FnOnce() + Send>) -> Result<Box<dyn Task>, HostError>;
}

/// What a host lends one VM besides its devices.
pub struct Lent {
    /// Where its output goes.
    pub console: Box<dyn Console>,
    /// Its clock.
    pub clock: Box<dyn Clock>,
    /// Waits for its networks.
    pub wait: Box<dyn WaitSet>,
    /// Interrupts its vCPU.
    pub kick: Arc<dyn Kick>,
}

/// Makes a running vCPU leave its guest with [`crate::vcpu::VmExit::Interrupted`].
pub trait Kick: Send + Sync {
    /// Called by the thread that is about to run the vCPU: it is the one to be kicked.
    fn enter(&self);

    /// Called by that thread when it no longer runs the vCPU.
    fn leave(&self);

    /// Interrupts the vCPU. A kick between [`Kick::enter`] and the guest's next instruction is
    /// not lost; one outside of enter and leave does nothing.
    fn kick(&self);
}

/// Work that [`HvtSession::spawn`] began.
pub trait Task: Send {
    /// Waits for its end.
    fn join(self: Box<Self>);
}
