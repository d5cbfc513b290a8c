//! One chain of descriptors, walked with a budget (VIRTIO 1.3 §2.7.5).

use super::{Buffers, DESCRIPTOR, Layout, QueueError, Segment};
use crate::memory::{Gpa, GuestMemory};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Descriptor {
    address: U64,
    len: U32,
    flags: U16,
    next: U16,
}

/// What a driver has put together: buffers to read, then buffers to write. Their addresses are
/// checked when they are used.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    /// What the device reads.
    pub readable: Buffers,
    /// What the device writes.
    pub writable: Buffers,
}

/// The table that is being walked: the queue's, or an indirect one.
struct Table {
    at: u64,
    len: u16,
    indirect: bool,
}

impl Chain {
    /// The number that gives it back.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What it takes of a budget.
    pub(super) fn cost(&self) -> u32 {
        1 + (self.readable.len() >> 16) + (self.writable.len() >> 16)
    }

    /// Reads a chain in place of what was there.
    pub(super) fn walk(
        &mut self,
        memory: &GuestMemory,
        layout: &Layout,
        head: u16,
        allow_indirect: bool,
    ) -> Result<(), QueueError> {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
        let mut table = Table { at: layout.descriptors, len: layout.size, indirect: false };
        let (mut index, mut total) = (head, 0u32);
        let mut left = layout.size;
        loop {
            let descriptor = table.read(memory, index)?;
            let (flags, len) = (descriptor.flags.get(), descriptor.len.get());
            if flags & INDIRECT != 0 {
                if !allow_indirect || table.indirect || flags & NEXT != 0 {
                    return Err(QueueError::Indirect);
                }
                // It is none of the chain's own: a table may have as many as the queue. It comes
                // once at most, so the walk ends.
                table = Table::indirect(&descriptor)?;
                index = 0;
                continue;
            }
            left = left.checked_sub(1).ok_or(QueueError::TooLong(layout.size))?;
            total = total.checked_add(len).ok_or(QueueError::TooLarge)?;
            self.add(descriptor.address.get(), len, flags & WRITE != 0)?;
            if flags & NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next.get();
        }
    }

    fn add(&mut self, address: u64, len: u32, writable: bool) -> Result<(), QueueError> {
        if !writable && !self.writable.is_empty() {
            return Err(QueueError::Order);
        }
        let to = if writable { &mut self.writable } else { &mut self.readable };
        to.push(Segment { at: Gpa(address), len });
        Ok(())
    }
}

impl Table {
    fn indirect(descriptor: &Descriptor) -> Result<Self, QueueError> {
        let bytes = descriptor.len.get();
        let len = u64::from(bytes) / DESCRIPTOR;
        match u16::try_from(len) {
            Ok(len) if len > 0 && u64::from(bytes).is_multiple_of(DESCRIPTOR) => {
                Ok(Self { at: descriptor.address.get(), len, indirect: true })
            }
            _ => Err(QueueError::IndirectSize(bytes)),
        }
    }

    fn read(&self, memory: &GuestMemory, index: u16) -> Result<Descriptor, QueueError> {
        if index >= self.len {
            return Err(QueueError::Index(index, self.len));
        }
        let at = self.at.saturating_add(DESCRIPTOR * u64::from(index));
        Ok(memory.read_obj(Gpa(at))?)
    }
}
