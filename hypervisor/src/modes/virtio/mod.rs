//! virtio devices (VIRTIO 1.3): what they are, their queues, and how a guest reaches them by PCI.
//!
//! Order: a [`VirtioDevice`] is wrapped in a [`Transport`]; [`pci::function`] makes a PCI function
//! of it. The guest negotiates, sets up queues and notifies; a notification is an
//! [`crate::device::Effect::Work`], so that the device calls its host with no lock held, on the
//! thread that has applied the effects: the vCPU's own. That costs no switch of threads and no
//! second copy of the state, and a host that wants another thread has it by applying the effects
//! there. A driver that floods its device gets a bounded part served at once; the rest is
//! deferred ([`crate::device::Devices::work`]) until other threads have had their turn. What arrives from outside comes by [`Transport::poll`], on the host's thread.
//!
//! Only version 1 devices, split queues, no legacy interface.

pub mod blk;
pub mod net;
pub mod pci;
pub mod queue;
mod report;
mod transport;

pub use transport::{Transport, status};

use crate::memory::GuestMemory;
use queue::{Queue, QueueError};

/// Feature bits of the ring and the transport (VIRTIO 1.3 §6).
pub mod feature {
    /// A descriptor may point to a table of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// Each side says at which index it wants to be told.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device is what VIRTIO 1 says.
    pub const VERSION_1: u64 = 1 << 32;
    /// What every device here offers.
    pub const COMMON: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1;
}

/// What a device is called with when it is to work.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The guest's memory.
    pub memory: &'a GuestMemory,
    /// The features that were negotiated.
    pub features: u64,
}

/// A device, as the transport drives it. It is shared by threads; [`VirtioDevice::process`] may
/// be called for different queues at once, for one queue by one thread at a time.
pub trait VirtioDevice: Send + Sync {
    /// A name for messages.
    fn name(&self) -> &'static str;

    /// Its ID (VIRTIO 1.3 §5).
    fn id(&self) -> u16;

    /// PCI base class, subclass and programming interface.
    fn class(&self) -> [u8; 3];

    /// The features that it offers besides [`feature::COMMON`].
    fn features(&self) -> u64;

    /// The largest size of each queue: powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `to` from its configuration structure; what is beyond it stays.
    fn read_config(&self, offset: usize, to: &mut [u8]);

    /// Does what there is to do in queue number `index`, or a bounded part of it: it returns
    /// whether there may be more. It may call its host and block.
    ///
    /// # Errors
    /// If the guest has broken the queue: the device then needs a reset.
    fn process(
        &self,
        index: usize,
        queue: &mut Queue,
        context: &Context<'_>,
    ) -> Result<bool, QueueError>;
}

/// Copies the part of a configuration structure that begins at `offset`; what is beyond it stays.
fn copy_config(from: &[u8], offset: usize, to: &mut [u8]) {
    let rest = from.get(offset..).unwrap_or_default();
    let count = rest.len().min(to.len());
    to[..count].copy_from_slice(&rest[..count]);
}
