//! The guest-physical address space: which addresses are RAM, where the host has them, and what
//! may be done with them.
//!
//! A [`GuestMemory`] shares the ownership of the host memory behind it. Whoever holds a clone may
//! use it after the VM is gone: the host memory is unmapped when the last clone is dropped.

#![allow(unsafe_code)]

use super::backing::{Backing, Words};
use super::{Gpa, GuestSlice, MemoryError, Perms};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem::size_of;
use core::ops::Range;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A piece of host memory that backs a range of guest RAM, and its owner.
#[derive(Clone)]
pub struct HostBlock {
    gpa: Gpa,
    len: u64,
    host: *mut u8,
    _backing: Backing,
}

impl HostBlock {
    /// `len` bytes of guest RAM from `gpa`, which the host has at `host`.
    ///
    /// # Safety
    /// `host..host + len` must stay mapped, for reading and writing except where
    /// [`GuestMemory::protect`] is told otherwise, until `backing` is dropped. Nothing else in the
    /// host may hold a Rust reference to it.
    pub unsafe fn new(gpa: Gpa, len: u64, host: *mut u8, backing: Backing) -> Self {
        Self { gpa, len, host, _backing: backing }
    }

    /// `len` bytes of zeroed guest RAM from `gpa`, on the heap, for tests and small guests. `len`
    /// is rounded up to a multiple of 8 in the host.
    ///
    /// # Panics
    /// If the host has no such piece of memory.
    pub fn zeroed(gpa: Gpa, len: u64) -> Self {
        let words = Words::zeroed(usize::try_from(len.div_ceil(8)).unwrap_or(usize::MAX));
        let host = words.start();
        // SAFETY: the words live as long as their owner, which nobody else refers to.
        unsafe { Self::new(gpa, len, host, Arc::new(words)) }
    }

    /// The guest-physical addresses that it backs.
    pub fn range(&self) -> Range<u64> {
        self.gpa.0..self.gpa.0 + self.len
    }

    /// Where the host has it.
    pub fn host(&self) -> *mut u8 {
        self.host
    }
}

impl fmt::Debug for HostBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostBlock")
            .field("range", &self.range())
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// A run of pages with the same permissions.
#[derive(Debug, Clone)]
struct Run {
    range: Range<u64>,
    perms: Perms,
}

/// A guest's RAM. Blocks never overlap; permissions default to read and write.
#[derive(Debug, Clone, Default)]
pub struct GuestMemory {
    blocks: Vec<HostBlock>,
    /// Ranges whose permissions differ from read and write, sorted, disjoint.
    runs: Vec<Run>,
}

// SAFETY: the blocks are raw memory that the guest shares anyway; access is by volatile or atomic
// operations only, the tables change only through `&mut self`, and owners are `Send + Sync`.
unsafe impl Send for GuestMemory {}
// SAFETY: as above.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// An address space without memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a block.
    ///
    /// # Errors
    /// [`MemoryError::Overlap`] if it overlaps another or wraps around the address space.
    pub fn add(&mut self, block: HostBlock) -> Result<(), MemoryError> {
        let end = block.gpa.0.checked_add(block.len);
        let overlaps = end.is_none_or(|end| {
            self.blocks.iter().any(|b| b.range().start < end && block.gpa.0 < b.range().end)
        });
        if overlaps {
            let end = block.gpa.0.saturating_add(block.len);
            return Err(MemoryError::Overlap { start: block.gpa.0, end });
        }
        self.blocks.push(block);
        Ok(())
    }

    /// The blocks, in the order in which they were added.
    pub fn blocks(&self) -> &[HostBlock] {
        &self.blocks
    }

    /// The end of the highest block: one more than the highest address.
    pub fn end(&self) -> Gpa {
        Gpa(self.blocks.iter().map(|b| b.range().end).max().unwrap_or(0))
    }

    /// The same guest memory as it appears in another host address space, where the block that
    /// was at `host` is found at `f(block)`.
    ///
    /// # Safety
    /// As for [`HostBlock::new`], with the new addresses, from when the result is first used.
    pub unsafe fn rebased(&self, f: impl Fn(&HostBlock) -> *mut u8) -> Self {
        let blocks = self.blocks.iter().map(|b| HostBlock { host: f(b), ..b.clone() }).collect();
        Self { blocks, runs: self.runs.clone() }
    }

    /// Restricts what may be done with a range, for the host as for the guest. Later calls win.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`] if the range is not inside one block.
    pub fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), MemoryError> {
        let len = range.end.saturating_sub(range.start);
        self.find(Gpa(range.start), len)?;
        let mut runs = Vec::with_capacity(self.runs.len() + 2);
        for run in self.runs.drain(..) {
            let before = run.range.start..run.range.end.min(range.start);
            let after = run.range.start.max(range.end)..run.range.end;
            for rest in [before, after] {
                if rest.start < rest.end {
                    runs.push(Run { range: rest, perms: run.perms });
                }
            }
        }
        runs.push(Run { range, perms });
        runs.sort_by_key(|run| run.range.start);
        self.runs = runs;
        Ok(())
    }

    /// Every range whose permissions are not plain read and write, in ascending order.
    pub fn protections(&self) -> impl Iterator<Item = (Range<u64>, Perms)> + '_ {
        self.runs.iter().map(|run| (run.range.clone(), run.perms))
    }

    /// What may be done with the byte at `gpa`; `None` where there is no memory.
    pub fn perms_at(&self, gpa: Gpa) -> Option<Perms> {
        self.find(gpa, 1).ok()?;
        let run = self.runs.iter().find(|run| run.range.contains(&gpa.0));
        Some(run.map_or(Perms::READ | Perms::WRITE, |run| run.perms))
    }

    /// The one checking function: `len` bytes at `gpa`, all inside one block, all with `needs`.
    ///
    /// # Errors
    /// [`MemoryError::OutOfRange`] and [`MemoryError::Denied`].
    pub fn slice(&self, gpa: Gpa, len: u64, needs: Perms) -> Result<GuestSlice<'_>, MemoryError> {
        let block = self.find(gpa, len)?;
        let end = gpa.0 + len;
        let denied = |run: &Run| {
            run.range.start < end && gpa.0 < run.range.end && !run.perms.contains(needs)
        };
        if len > 0 && self.runs.iter().any(denied) {
            return Err(MemoryError::Denied { gpa, len, needs });
        }
        let out_of_range = MemoryError::OutOfRange { gpa, len };
        let offset = usize::try_from(gpa.0 - block.gpa.0).map_err(|_| out_of_range)?;
        let size = usize::try_from(len).map_err(|_| out_of_range)?;
        // SAFETY: `find` has checked that offset..offset + len is inside of the block, which is
        // mapped for as long as `self` holds its owner; the permissions were checked just now.
        Ok(unsafe { GuestSlice::new(block.host.add(offset), size, needs.contains(Perms::WRITE)) })
    }

    fn find(&self, gpa: Gpa, len: u64) -> Result<&HostBlock, MemoryError> {
        let error = MemoryError::OutOfRange { gpa, len };
        let end = gpa.0.checked_add(len).ok_or(error)?;
        let inside = |b: &&HostBlock| b.range().start <= gpa.0 && end <= b.range().end;
        self.blocks.iter().find(inside).ok_or(error)
    }

    /// Copies guest memory out, to fill `to`.
    ///
    /// # Errors
    /// As [`GuestMemory::slice`].
    pub fn read_bytes(&self, gpa: Gpa, to: &mut [u8]) -> Result<(), MemoryError> {
        self.slice(gpa, to.len() as u64, Perms::READ)?.copy_to(to);
        Ok(())
    }

    /// Copies `from` to guest memory.
    ///
    /// # Errors
    /// As [`GuestMemory::slice`].
    pub fn write_bytes(&self, gpa: Gpa, from: &[u8]) -> Result<(), MemoryError> {
        self.slice(gpa, from.len() as u64, Perms::WRITE)?.copy_from(from);
        Ok(())
    }

    /// Reads a structure once, as a copy that the guest cannot change any more.
    ///
    /// # Errors
    /// As [`GuestMemory::slice`].
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, gpa: Gpa) -> Result<T, MemoryError> {
        let mut value = T::new_zeroed();
        self.read_bytes(gpa, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a structure.
    ///
    /// # Errors
    /// As [`GuestMemory::slice`].
    pub fn write_obj<T: IntoBytes + Immutable>(&self, gpa: Gpa, t: &T) -> Result<(), MemoryError> {
        self.write_bytes(gpa, t.as_bytes())
    }

    /// The checked, aligned address of a `T`, an integer that a processor accesses as one.
    fn atomic<T>(&self, gpa: Gpa, needs: Perms) -> Result<*mut T, MemoryError> {
        let slice = self.slice(gpa, size_of::<T>() as u64, needs)?;
        let ptr = slice.as_ptr().cast::<T>();
        if ptr.is_aligned() { Ok(ptr) } else { Err(MemoryError::Misaligned(gpa)) }
    }

    fn atomic_u32(&self, gpa: Gpa, needs: Perms) -> Result<&AtomicU32, MemoryError> {
        let ptr = self.atomic(gpa, needs)?;
        // SAFETY: aligned, mapped for as long as `self` lives, and shared with the guest only,
        // whose accesses are atomic in the same sense.
        Ok(unsafe { AtomicU32::from_ptr(ptr) })
    }

    fn atomic_u16(&self, gpa: Gpa, needs: Perms) -> Result<&AtomicU16, MemoryError> {
        let ptr = self.atomic(gpa, needs)?;
        // SAFETY: as in `atomic_u32`.
        Ok(unsafe { AtomicU16::from_ptr(ptr) })
    }

    /// Loads a 32-bit value that the guest may be writing.
    ///
    /// # Errors
    /// As [`GuestMemory::slice`], and [`MemoryError::Misaligned`].
    pub fn load_u32(&self, gpa: Gpa, order: Ordering) -> Result<u32, MemoryError> {
        Ok(self.atomic_u32(gpa, Perms::READ)?.load(order))
    }

    /// Sets bits of a 32-bit value that the guest may be changing.
    ///
    /// # Errors
    /// As [`GuestMemory::slice`], and [`MemoryError::Misaligned`].
    pub fn fetch_or_u32(&self, gpa: Gpa, bits: u32, order: Ordering) -> Result<u32, MemoryError> {
        Ok(self.atomic_u32(gpa, Perms::READ | Perms::WRITE)?.fetch_or(bits, order))
    }

    /// Stores a 32-bit value that the guest may be reading.
    ///
    /// # Errors
    /// As [`GuestMemory::slice`], and [`MemoryError::Misaligned`].
    pub fn store_u32(&self, gpa: Gpa, value: u32, order: Ordering) -> Result<(), MemoryError> {
        self.atomic_u32(gpa, Perms::READ | Perms::WRITE)?.store(value, order);
        Ok(())
    }

    /// Loads a 16-bit value that the guest may be writing.
    ///
    /// # Errors
    /// As [`GuestMemory::slice`], and [`MemoryError::Misaligned`].
    pub fn load_u16(&self, gpa: Gpa, order: Ordering) -> Result<u16, MemoryError> {
        Ok(self.atomic_u16(gpa, Perms::READ)?.load(order))
    }

    /// Stores a 16-bit value that the guest may be reading.
    ///
    /// # Errors
    /// As [`GuestMemory::slice`], and [`MemoryError::Misaligned`].
    pub fn store_u16(&self, gpa: Gpa, value: u16, order: Ordering) -> Result<(), MemoryError> {
        self.atomic_u16(gpa, Perms::READ | Perms::WRITE)?.store(value, order);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RW: Perms = Perms::READ.union(Perms::WRITE);

    fn memory(words: u64, gpa: u64) -> GuestMemory {
        let mut memory = GuestMemory::new();
        memory.add(HostBlock::zeroed(Gpa(gpa), words * 8)).unwrap();
        memory
    }

    #[test]
    fn host_memory_lives_until_its_last_user_is_gone() {
        let backing: Backing = Arc::new(());
        let watch = Arc::downgrade(&backing);
        let mut word = 0u64;
        // SAFETY: the word lives to the end of the test and is read only through the memory.
        let block = unsafe { HostBlock::new(Gpa(0), 8, (&raw mut word).cast(), backing) };
        let mut memory = GuestMemory::new();
        memory.add(block).unwrap();
        let device = memory.clone();
        drop(memory);
        assert_eq!(watch.strong_count(), 1, "a device still uses the memory");
        device.write_obj(Gpa(0), &7u64).unwrap();
        assert_eq!(device.read_obj::<u64>(Gpa(0)), Ok(7));
        drop(device);
        assert_eq!(watch.strong_count(), 0, "nobody uses the memory any more");
    }

    #[test]
    fn every_edge_of_a_block_is_checked() {
        let m = memory(32, 0x1000);
        assert!(m.slice(Gpa(0x1000), 256, RW).is_ok());
        assert!(m.slice(Gpa(0x1100), 0, RW).is_ok());
        for (gpa, len) in [(0xfff, 1), (0x1000, 257), (0x10ff, 2), (0x1101, 0), (0, 0)] {
            assert!(m.slice(Gpa(gpa), len, RW).is_err(), "{gpa:#x} {len}");
        }
        for (gpa, len) in [(u64::MAX, 1), (u64::MAX, u64::MAX), (0x1000, u64::MAX), (1, u64::MAX)] {
            assert!(m.slice(Gpa(gpa), len, RW).is_err(), "{gpa:#x} {len}");
        }
    }

    #[test]
    fn overlapping_and_wrapping_blocks_are_refused() {
        let mut m = memory(32, 0x1000);
        for (gpa, len) in [(0x1000, 256), (0xfff, 2), (0x10ff, 1), (0x1010, 8), (u64::MAX, 2)] {
            let host = core::ptr::dangling_mut();
            // SAFETY: refused, so never used.
            let block = unsafe { HostBlock::new(Gpa(gpa), len, host, Arc::new(())) };
            assert!(matches!(m.add(block), Err(MemoryError::Overlap { .. })), "{gpa:#x} {len}");
        }
    }

    #[test]
    fn the_last_protection_wins() {
        let mut m = memory(512, 0);
        m.protect(0..0x800, Perms::READ).unwrap();
        m.protect(0x200..0x400, RW).unwrap();
        assert!(m.write_bytes(Gpa(0x200), &[0; 0x200]).is_ok());
        assert!(m.write_bytes(Gpa(0x1ff), &[0; 2]).is_err());
        assert!(m.write_bytes(Gpa(0x3ff), &[0; 2]).is_err());
        assert!(m.write_bytes(Gpa(0x800), &[0; 2]).is_ok());
        assert!(m.protect(0xfff..0x1001, RW).is_err());
        assert_eq!(m.perms_at(Gpa(0x7ff)), Some(Perms::READ));
        assert_eq!(m.perms_at(Gpa(0x1000)), None);
    }

    #[test]
    fn objects_come_back_as_written() {
        let m = memory(4, 0);
        m.write_obj(Gpa(3), &0x1122_3344_5566_7788u64).unwrap();
        assert_eq!(m.read_obj::<u64>(Gpa(3)), Ok(0x1122_3344_5566_7788));
        assert_eq!(m.load_u32(Gpa(2), Ordering::Relaxed), Err(MemoryError::Misaligned(Gpa(2))));
        m.store_u32(Gpa(28), 7, Ordering::Release).unwrap();
        assert_eq!(m.fetch_or_u32(Gpa(28), 8, Ordering::AcqRel), Ok(7));
        assert_eq!(m.load_u32(Gpa(28), Ordering::Acquire), Ok(15));
        assert!(m.store_u32(Gpa(32), 7, Ordering::Release).is_err());
        m.store_u16(Gpa(6), 0xabcd, Ordering::Release).unwrap();
        assert_eq!(m.load_u16(Gpa(6), Ordering::Acquire), Ok(0xabcd));
        assert_eq!(m.load_u16(Gpa(7), Ordering::Relaxed), Err(MemoryError::Misaligned(Gpa(7))));
        assert!(m.load_u16(Gpa(32), Ordering::Relaxed).is_err());
    }
}
