//! The buffers of a chain, seen as one run of bytes.

use crate::memory::{Gpa, GuestMemory, GuestSlice, MemoryError, Perms};
use alloc::vec::Vec;

/// One buffer: not checked to be memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it is.
    pub at: Gpa,
    /// How long it is.
    pub len: u32,
}

/// Buffers, one behind the other; less than 4 GiB together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    segments: Vec<Segment>,
    len: u32,
}

impl Buffers {
    /// Bytes of all buffers.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffers that have bytes.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Bytes `offset..offset + len`, one checked piece for each buffer that they are in. Bytes
    /// that are beyond the end are left out.
    pub fn parts<'a>(
        &'a self,
        memory: &'a GuestMemory,
        offset: u32,
        len: u32,
        needs: Perms,
    ) -> impl Iterator<Item = Result<GuestSlice<'a>, MemoryError>> + 'a {
        let (from, to) = (u64::from(offset), u64::from(offset) + u64::from(len));
        let mut start = 0u64;
        let ranges = self.segments.iter().map(move |segment| {
            let at = start;
            start += u64::from(segment.len);
            (segment, at.max(from) - at, start.min(to).saturating_sub(at))
        });
        ranges.filter(|(_, first, last)| first < last).map(move |(segment, first, last)| {
            let at = segment.at.checked_add(first);
            let at = at.ok_or(MemoryError::OutOfRange { gpa: segment.at, len: last })?;
            memory.slice(at, last - first, needs)
        })
    }

    /// Copies bytes out, from `offset` on; returns how many there were.
    ///
    /// # Errors
    /// If a buffer is no memory.
    pub fn read(
        &self,
        memory: &GuestMemory,
        offset: u32,
        to: &mut [u8],
    ) -> Result<usize, MemoryError> {
        let mut done = 0;
        let len = u32::try_from(to.len()).unwrap_or(u32::MAX);
        for part in self.parts(memory, offset, len, Perms::READ) {
            done += part?.copy_to(&mut to[done..]);
        }
        Ok(done)
    }

    /// Copies bytes in, from `offset` on; returns how many fit.
    ///
    /// # Errors
    /// If a buffer is no memory that may be written.
    pub fn write(
        &self,
        memory: &GuestMemory,
        offset: u32,
        from: &[u8],
    ) -> Result<usize, MemoryError> {
        let mut done = 0;
        let len = u32::try_from(from.len()).unwrap_or(u32::MAX);
        for part in self.parts(memory, offset, len, Perms::WRITE) {
            let part = part?;
            done += part.copy_from(&from[done..]);
        }
        Ok(done)
    }

    pub(super) fn clear(&mut self) {
        self.segments.clear();
        self.len = 0;
    }

    /// The chain has checked that the sum fits.
    pub(super) fn push(&mut self, segment: Segment) {
        if segment.len > 0 {
            self.len = self.len.saturating_add(segment.len);
            self.segments.push(segment);
        }
    }
}
