//! What Type 1 mode asks a host for.

use crate::host::{Blob, BlockStore, Clock, Console, HostError, NetPort, Notices};
use crate::vm::VmId;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A host that Type 1 mode can run guests on.
pub trait Type1Host: Send + Sync {
    /// Opens a kernel, an initial RAM disk or firmware. It stays open for as long as the VM is
    /// there, and is read again when the guest resets the machine.
    ///
    /// # Errors
    /// The host's.
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, HostError>;

    /// Begins a VM.
    ///
    /// # Errors
    /// The host's.
    fn session(&self, vm: VmId, name: &str) -> Result<Box<dyn Type1Session>, HostError>;
}

/// The host's side of one VM: its disks and networks, then [`Type1Session::lend`], once. It is
/// kept for as long as the VM or a handle to one of its vCPUs is.
pub trait Type1Session: Send {
    /// Opens a disk.
    ///
    /// # Errors
    /// The host's.
    fn disk(&mut self, path: &str, read_only: bool) -> Result<Box<dyn BlockStore>, HostError>;

    /// Opens the network number `index` of this VM. Whenever a frame has arrived that was not
    /// there before, the host calls `arrived`, from a thread that may be kept for a while and
    /// holds no lock of the host's that [`NetPort`] needs. Calls may be spurious or be merged,
    /// and none is needed for frames that are left in the port on purpose.
    ///
    /// # Errors
    /// The host's.
    fn net(
        &mut self,
        index: u32,
        interface: Option<&str>,
        mac: Option<[u8; 6]>,
        arrived: Arc<dyn Arrival>,
    ) -> Result<Box<dyn NetPort>, HostError>;

    /// Lends everything else, for `vcpus` vCPUs. What is typed goes to `input`.
    ///
    /// # Errors
    /// The host's.
    fn lend(&mut self, vcpus: u32, input: Arc<dyn ConsoleInput>) -> Result<Lent, HostError>;
}

/// Told that something has arrived: the device takes it, on the caller's thread.
pub trait Arrival: Send + Sync {
    /// Something has arrived.
    fn arrived(&self);
}

/// The guest's side of its console: a serial line with a buffer before it.
pub trait ConsoleInput: Send + Sync {
    /// Gives the guest bytes, and returns how many it has taken: fewer where its buffer (a few
    /// KiB) is full. It neither blocks nor sleeps, and may be called by any thread.
    fn type_in(&self, bytes: &[u8]) -> usize;

    /// What is to be called when there is room again after [`ConsoleInput::type_in`] took less
    /// than everything: under no lock of the guest's, by a vCPU's thread. It must not block.
    fn on_room(&self, room: Arc<dyn Arrival>);
}

/// What a host lends one VM besides its devices.
pub struct Lent {
    /// Where its serial line's output goes. It is called for a few bytes at a time; a host that
    /// wants more at once gathers them.
    pub console: Box<dyn Console>,
    /// Where it is written down what a person should know of the VM.
    pub notices: Arc<dyn Notices>,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// One for each vCPU.
    pub vcpus: Vec<Arc<dyn VcpuThread>>,
}

/// The thread of one vCPU, as the host schedules it.
///
/// A kick is remembered: whenever it comes between [`VcpuThread::enter`] and
/// [`VcpuThread::leave`], either the guest is left ([`crate::vcpu::VmExit::Interrupted`], at once
/// where the vCPU was only about to run), or [`VcpuThread::park`] returns (at once where it was
/// only about to be called). One exit or return uses up all kicks before it. Spurious exits and
/// returns are legal.
pub trait VcpuThread: Send + Sync {
    /// Called by the thread that is about to run the vCPU: it is the one to be kicked.
    fn enter(&self);

    /// Called by that thread when it no longer runs the vCPU.
    fn leave(&self);

    /// Blocks the calling thread, which is the vCPU's own, until it is kicked or the time has
    /// come, in nanoseconds of [`Clock::monotonic_ns`]. `None`: until it is kicked.
    fn park(&self, until_ns: Option<u64>);

    /// Makes the thread look around, as above. Any thread may call it, with spinning locks held:
    /// it does not block.
    fn kick(&self);
}
