//! Split virtqueues, the device's side (VIRTIO 1.3 §2.7).
//!
//! Order: [`Queue::new`] once the driver has enabled the queue; then [`Queue::serve`], or its
//! parts: [`Queue::pop`] a chain, do what it says, [`Queue::push`] it, and at the end ask
//! [`Queue::take_signal`] whether the driver wants to be told.
//!
//! The driver may change everything in memory at any time: each field is read once, checked, and
//! the copy used. Indexes of the device's side are kept here and never read back. A chain has a
//! budget of descriptors: the queue's size.

mod buffers;
mod chain;

pub use buffers::{Buffers, Segment};
pub use chain::Chain;

use crate::memory::{Gpa, GuestMemory, MemoryError};
use core::num::Wrapping;
use core::sync::atomic::{Ordering, fence};
use zerocopy::IntoBytes;

/// Largest size of any queue (VIRTIO 1.3 §2.7).
pub const MAX_SIZE: u16 = 1 << 15;

/// How much of one queue is served at once: a chain costs 1, and 1 more for each 64 KiB.
const BUDGET: u32 = 256;

/// The driver wants no interrupts (`avail.flags`).
const NO_INTERRUPT: u16 = 1;
/// The device wants no notifications (`used.flags`).
const NO_NOTIFY: u16 = 1;
const DESCRIPTOR: u64 = 16;

/// Where a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    /// How many descriptors it has: a power of two.
    pub size: u16,
    /// The descriptor table.
    pub descriptors: u64,
    /// The available ring.
    pub available: u64,
    /// The used ring.
    pub used: u64,
}

/// How a driver has broken a queue. The device cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// A part of the queue is no memory, or misaligned.
    #[error("the queue is not in the guest's memory: {0}")]
    Memory(#[from] MemoryError),
    /// The size is no power of two or too large.
    #[error("a queue of {0} descriptors; it must be a power of two of at most {MAX_SIZE}")]
    Size(u16),
    /// More chains are offered than there are descriptors.
    #[error("{0} chains are available in a queue of {1} descriptors")]
    Available(u16, u16),
    /// A descriptor that does not exist.
    #[error("descriptor {0} of a table of {1}")]
    Index(u16, u16),
    /// More descriptors in a chain than in the queue: it may be a circle.
    #[error("a chain of more than {0} descriptors")]
    TooLong(u16),
    /// A readable buffer behind a writable one.
    #[error("a readable buffer behind a writable one")]
    Order,
    /// The buffers of a chain have 4 GiB or more.
    #[error("a chain of 4 GiB or more")]
    TooLarge,
    /// An indirect table that may not be there.
    #[error("an indirect table that was not negotiated, is in another or goes on behind")]
    Indirect,
    /// An indirect table of no or broken descriptors.
    #[error("an indirect table of {0} bytes")]
    IndirectSize(u32),
    /// A chain without room for its request's fixed parts.
    #[error("a request without its header or without room for its outcome")]
    Request,
}

/// A queue at work.
#[derive(Debug)]
pub struct Queue {
    layout: Layout,
    event_index: bool,
    indirect: bool,
    next_available: Wrapping<u16>,
    next_used: Wrapping<u16>,
    /// `next_used` when the driver was last told, or asked whether it wants to be.
    signalled: Wrapping<u16>,
}

impl Queue {
    /// Begins at index 0. `event_index` and `indirect`: what was negotiated.
    ///
    /// # Errors
    /// If the driver has put it where it cannot be.
    pub fn new(
        layout: Layout,
        memory: &GuestMemory,
        event_index: bool,
        indirect: bool,
    ) -> Result<Self, QueueError> {
        if !layout.size.is_power_of_two() || layout.size > MAX_SIZE {
            return Err(QueueError::Size(layout.size));
        }
        let zero = Wrapping(0);
        let queue = Self {
            layout,
            event_index,
            indirect,
            next_available: zero,
            next_used: zero,
            signalled: zero,
        };
        queue.check(memory)?;
        Ok(queue)
    }

    /// Does `work` with every chain, without being notified meanwhile. `work` returns how many
    /// bytes it has written, or `None` if it cannot take the chain now: it then stays.
    ///
    /// Returns whether there may be more: a driver that never stops does not keep the caller, who
    /// calls again when others have had their turn.
    ///
    /// # Errors
    /// If the driver has broken the queue.
    pub fn serve(
        &mut self,
        memory: &GuestMemory,
        mut work: impl FnMut(&Chain) -> Result<Option<u32>, QueueError>,
    ) -> Result<bool, QueueError> {
        let mut chain = Chain::default();
        let mut budget = BUDGET;
        loop {
            self.set_notify(memory, false)?;
            while self.pop(memory, &mut chain)? {
                let Some(written) = work(&chain)? else {
                    self.undo_pop();
                    self.set_notify(memory, true)?;
                    return Ok(false);
                };
                self.push(memory, chain.head(), written)?;
                budget = budget.saturating_sub(chain.cost());
                if budget == 0 {
                    return Ok(true);
                }
            }
            self.set_notify(memory, true)?;
            // What became available before the driver could see that is not lost.
            fence(Ordering::SeqCst);
            if self.available(memory)? == 0 {
                return Ok(false);
            }
        }
    }

    /// Takes the next chain into `chain`; `false` if there is none.
    ///
    /// # Errors
    /// If the driver has broken the queue.
    pub fn pop(&mut self, memory: &GuestMemory, chain: &mut Chain) -> Result<bool, QueueError> {
        if self.available(memory)? == 0 {
            return Ok(false);
        }
        let slot = u64::from(self.next_available.0 % self.layout.size);
        let at = Gpa(self.layout.available + 4 + 2 * slot);
        let head = memory.load_u16(at, Ordering::Relaxed)?;
        chain.walk(memory, &self.layout, head, self.indirect)?;
        self.next_available += 1;
        Ok(true)
    }

    /// Leaves the chain that was popped last for later.
    pub fn undo_pop(&mut self) {
        self.next_available -= 1;
    }

    /// Gives a chain back, `written` bytes of which were written.
    ///
    /// # Errors
    /// If the used ring is no memory any more.
    pub fn push(
        &mut self,
        memory: &GuestMemory,
        head: u16,
        written: u32,
    ) -> Result<(), QueueError> {
        let slot = u64::from(self.next_used.0 % self.layout.size);
        let at = Gpa(self.layout.used + 4 + 8 * slot);
        memory.write_bytes(at, [u32::from(head).to_le(), written.to_le()].as_bytes())?;
        self.next_used += 1;
        memory.store_u16(Gpa(self.layout.used + 2), self.next_used.0, Ordering::Release)?;
        Ok(())
    }

    /// Whether the driver wants to be told of what was pushed since the last call.
    ///
    /// # Errors
    /// If the available ring is no memory any more.
    pub fn take_signal(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        let old = core::mem::replace(&mut self.signalled, self.next_used);
        if old == self.next_used {
            return Ok(false);
        }
        // The index was stored before the driver's wish is read (VIRTIO 1.3 §2.7.7.2).
        fence(Ordering::SeqCst);
        if !self.event_index {
            let flags = memory.load_u16(Gpa(self.layout.available), Ordering::Relaxed)?;
            return Ok(flags & NO_INTERRUPT == 0);
        }
        let event = Wrapping(memory.load_u16(Gpa(self.used_event()), Ordering::Relaxed)?);
        Ok(self.next_used - event - Wrapping(1) < self.next_used - old)
    }

    /// How many chains wait.
    fn available(&self, memory: &GuestMemory) -> Result<u16, QueueError> {
        let at = Gpa(self.layout.available + 2);
        let index = Wrapping(memory.load_u16(at, Ordering::Acquire)?);
        match (index - self.next_available).0 {
            count if count <= self.layout.size => Ok(count),
            count => Err(QueueError::Available(count, self.layout.size)),
        }
    }

    /// Tells the driver whether to notify of further chains.
    fn set_notify(&self, memory: &GuestMemory, wanted: bool) -> Result<(), QueueError> {
        let (at, value) = match (self.event_index, wanted) {
            (true, true) => (self.available_event(), self.next_available.0),
            // With event indexes the driver notifies once, and of what it has told already.
            (true, false) => return Ok(()),
            (false, wanted) => (self.layout.used, if wanted { 0 } else { NO_NOTIFY }),
        };
        memory.store_u16(Gpa(at), value, Ordering::Release)?;
        Ok(())
    }

    /// Behind the available ring.
    fn used_event(&self) -> u64 {
        self.layout.available + 4 + 2 * u64::from(self.layout.size)
    }

    /// Behind the used ring.
    fn available_event(&self) -> u64 {
        self.layout.used + 4 + 8 * u64::from(self.layout.size)
    }

    fn check(&self, memory: &GuestMemory) -> Result<(), QueueError> {
        use crate::memory::Perms;
        let (layout, size) = (&self.layout, u64::from(self.layout.size));
        let parts = [
            (layout.descriptors, DESCRIPTOR * size, 16, Perms::READ),
            (layout.available, 6 + 2 * size, 2, Perms::READ),
            (layout.used, 6 + 8 * size, 4, Perms::READ | Perms::WRITE),
        ];
        for (at, len, alignment, perms) in parts {
            if !at.is_multiple_of(alignment) {
                return Err(MemoryError::Misaligned(Gpa(at)).into());
            }
            memory.slice(Gpa(at), len, perms)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
