//! Four-level page tables of x86_64 (Intel SDM vol. 3 §4.5, AMD APM vol. 2 §5.3).
//!
//! Where tables come from and how they are reached is the caller's ([`Tables`]); what is mapped
//! here takes effect when the processor is told so, which is the caller's too.

#![allow(unsafe_code)]

use core::ops::Range;

bitflags::bitflags! {
    /// An entry's bits other than its address.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Rights: u64 {
        /// There is something.
        const PRESENT = 1;
        /// It may be written.
        const WRITE = 1 << 1;
        /// Write-through.
        const WRITE_THROUGH = 1 << 3;
        /// Not cached.
        const UNCACHED = 1 << 4;
        /// It was accessed.
        const ACCESSED = 1 << 5;
        /// It was written.
        const DIRTY = 1 << 6;
        /// It is a page of 2 MiB or 1 GiB, not a table.
        const LARGE = 1 << 7;
        /// It may not be executed.
        const NO_EXECUTE = 1 << 63;
    }
}

/// The processor need not note accesses that nobody asks for.
const NOTED: Rights = Rights::PRESENT.union(Rights::ACCESSED).union(Rights::DIRTY);

impl Rights {
    /// Code.
    pub const CODE: Self = NOTED;
    /// Data that does not change.
    pub const CONSTANT: Self = NOTED.union(Self::NO_EXECUTE);
    /// Data.
    pub const DATA: Self = Self::CONSTANT.union(Self::WRITE);
    /// Device registers.
    pub const DEVICE: Self = Self::DATA.union(Self::UNCACHED).union(Self::WRITE_THROUGH);
}

/// The bits of an entry that are an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const TABLE: u64 = Rights::PRESENT.union(Rights::WRITE).union(Rights::ACCESSED).bits();

/// How large a page is: 4 KiB, 2 MiB or 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
    /// 1 GiB.
    Huge,
}

impl Size {
    const fn level(self) -> u32 {
        match self {
            Self::Small => 0,
            Self::Large => 1,
            Self::Huge => 2,
        }
    }

    const fn of(level: u32) -> Self {
        match level {
            0 => Self::Small,
            1 => Self::Large,
            _ => Self::Huge,
        }
    }

    /// Bytes.
    pub const fn bytes(self) -> u64 {
        span(self.level())
    }
}

/// What an entry of a table of this level covers, in bytes.
const fn span(level: u32) -> u64 {
    4096 << (9 * level)
}

/// Where tables come from and how they are reached.
///
/// # Safety
/// A table that was given is zeroed, belongs to the page tables alone, and is reached at the
/// pointer for 512 entries until it is released.
pub unsafe trait Tables {
    /// A new table's physical address.
    fn alloc(&mut self) -> Option<u64>;

    /// Takes a table back.
    fn release(&mut self, table: u64);

    /// Where a table is reached.
    fn entries(&self, table: u64) -> *mut u64;
}

/// There was no memory for a table. What was mapped before stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMemory;

/// Page tables from their root.
pub struct PageTables<T> {
    root: u64,
    tables: T,
}

impl<T: Tables> PageTables<T> {
    /// New ones, with nothing in them.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn new(mut tables: T) -> Result<Self, NoMemory> {
        let root = tables.alloc().ok_or(NoMemory)?;
        Ok(Self { root, tables })
    }

    /// Where tables come from.
    pub fn source(&mut self) -> &mut T {
        &mut self.tables
    }

    /// Physical address of the root.
    pub fn root(&self) -> u64 {
        self.root
    }

    fn entry(&self, table: u64, index: u64) -> *mut u64 {
        // Indices are below 512 everywhere here.
        self.tables.entries(table).wrapping_add(usize::try_from(index).unwrap_or(0))
    }

    fn get(&self, table: u64, index: u64) -> u64 {
        // SAFETY: an entry of a table of ours.
        unsafe { self.entry(table, index).read_volatile() }
    }

    fn set(&mut self, table: u64, index: u64, value: u64) {
        // SAFETY: as above.
        unsafe { self.entry(table, index).write_volatile(value) };
    }

    /// Maps a page-aligned range of addresses to physical memory from `to` on, with pages as
    /// large as fit, `largest` at most. Whatever was mapped there as pages is replaced.
    ///
    /// # Errors
    /// [`NoMemory`].
    pub fn map(
        &mut self,
        range: Range<u64>,
        to: u64,
        rights: Rights,
        largest: Size,
    ) -> Result<(), NoMemory> {
        self.map_in(self.root, 3, range, to, rights, largest.level())
    }

    fn map_in(
        &mut self,
        table: u64,
        level: u32,
        range: Range<u64>,
        to: u64,
        rights: Rights,
        largest: u32,
    ) -> Result<(), NoMemory> {
        let size = span(level);
        let (mut at, mut to) = (range.start, to);
        while at < range.end {
            let next = (at & !(size - 1)).wrapping_add(size);
            // The last range of all ends at address 0.
            let end = if next == 0 { range.end } else { next.min(range.end) };
            let index = (at >> (12 + 9 * level)) & 511;
            let whole = end - at == size && to.is_multiple_of(size);
            if level == 0 || (level <= largest && whole) {
                let large = if level > 0 { Rights::LARGE.bits() } else { 0 };
                self.set(table, index, to | rights.bits() | large);
            } else {
                let below = self.descend(table, index)?;
                self.map_in(below, level - 1, at..end, to, rights, largest)?;
            }
            to = to.wrapping_add(end - at);
            at = end;
        }
        Ok(())
    }

    /// The table below an entry, made if there is none.
    fn descend(&mut self, table: u64, index: u64) -> Result<u64, NoMemory> {
        let entry = self.get(table, index);
        if entry & Rights::PRESENT.bits() != 0 && entry & Rights::LARGE.bits() == 0 {
            return Ok(entry & ADDRESS);
        }
        let below = self.tables.alloc().ok_or(NoMemory)?;
        self.set(table, index, below | TABLE);
        Ok(below)
    }

    /// Removes a page-aligned range; each page that was in it is handed to `gone`. Tables that
    /// lie wholly in the range are released.
    pub fn unmap(&mut self, range: Range<u64>, gone: &mut dyn FnMut(u64, Size)) {
        self.unmap_in(self.root, 3, range, gone);
    }

    fn unmap_in(
        &mut self,
        table: u64,
        level: u32,
        range: Range<u64>,
        gone: &mut dyn FnMut(u64, Size),
    ) {
        let size = span(level);
        let mut at = range.start;
        while at < range.end {
            let next = (at & !(size - 1)).wrapping_add(size);
            let end = if next == 0 { range.end } else { next.min(range.end) };
            let index = (at >> (12 + 9 * level)) & 511;
            let entry = self.get(table, index);
            let whole = end - at == size;
            if entry & Rights::PRESENT.bits() == 0 {
                // Nothing there.
            } else if level == 0 || entry & Rights::LARGE.bits() != 0 {
                if whole {
                    self.set(table, index, 0);
                    gone(entry & ADDRESS & !(size - 1), Size::of(level));
                }
            } else {
                let below = entry & ADDRESS;
                self.unmap_in(below, level - 1, at..end, gone);
                if whole {
                    self.set(table, index, 0);
                    self.tables.release(below);
                }
            }
            at = end;
        }
    }

    /// Whether nothing is mapped in a page-aligned range.
    pub fn is_empty(&self, range: Range<u64>) -> bool {
        self.is_empty_in(self.root, 3, range)
    }

    fn is_empty_in(&self, table: u64, level: u32, range: Range<u64>) -> bool {
        let size = span(level);
        let mut at = range.start;
        while at < range.end {
            let next = (at & !(size - 1)).wrapping_add(size);
            let end = if next == 0 { range.end } else { next.min(range.end) };
            let entry = self.get(table, (at >> (12 + 9 * level)) & 511);
            if entry & Rights::PRESENT.bits() != 0 {
                let page = level == 0 || entry & Rights::LARGE.bits() != 0;
                if page || !self.is_empty_in(entry & ADDRESS, level - 1, at..end) {
                    return false;
                }
            }
            at = end;
        }
        true
    }

    /// What an address leads to: the physical address and the entry's bits.
    pub fn translate(&self, at: u64) -> Option<(u64, Rights)> {
        let mut table = self.root;
        for level in (0..4).rev() {
            let entry = self.get(table, (at >> (12 + 9 * level)) & 511);
            if entry & Rights::PRESENT.bits() == 0 {
                return None;
            }
            if level == 0 || entry & Rights::LARGE.bits() != 0 {
                let inside = at & (span(level) - 1);
                let page = entry & ADDRESS & !(span(level) - 1);
                return Some((page | inside, Rights::from_bits_truncate(entry)));
            }
            table = entry & ADDRESS;
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    /// Tables in the test's memory, by made-up addresses.
    #[derive(Default)]
    struct Pretend {
        tables: BTreeMap<u64, Box<[u64; 512]>>,
        made: u64,
        limit: u64,
    }

    // SAFETY: boxes stay where they are; each is a table of its own.
    unsafe impl Tables for Pretend {
        fn alloc(&mut self) -> Option<u64> {
            if self.tables.len() as u64 >= self.limit {
                return None;
            }
            self.made += 1;
            self.tables.insert(self.made << 12, Box::new([0; 512]));
            Some(self.made << 12)
        }

        fn release(&mut self, table: u64) {
            assert!(self.tables.remove(&table).is_some());
        }

        fn entries(&self, table: u64) -> *mut u64 {
            self.tables[&table].as_ptr().cast_mut()
        }
    }

    fn tables() -> PageTables<Pretend> {
        PageTables::new(Pretend { limit: 100, ..Pretend::default() }).unwrap()
    }

    const TOP: u64 = 0xffff_ffff_8000_0000;

    #[test]
    fn pages_are_as_large_as_fits() {
        let mut t = tables();
        let range = 0xffff_8000_0010_0000..0xffff_8000_8020_1000;
        t.map(range.clone(), 0x10_0000, Rights::DATA, Size::Huge).unwrap();
        for (at, large) in [(0x10_0000, false), (0x20_0000, true), (0x4000_1234, true)] {
            let (to, rights) = t.translate(0xffff_8000_0000_0000 + at).unwrap();
            assert_eq!((to, rights.contains(Rights::LARGE)), (at, large));
            assert!(rights.contains(Rights::DATA));
        }
        assert_eq!(t.translate(0xffff_8000_8020_0fff).unwrap().0, 0x8020_0fff);
        assert_eq!(t.translate(range.end), None);
        assert_eq!(t.translate(range.start - 1), None);
        // Root, one of the second level, two of the third (first GiB, last MiB), two of the last.
        assert_eq!(t.tables.tables.len(), 6);
    }

    #[test]
    fn the_end_of_the_address_space_is_an_address_like_any() {
        let mut t = tables();
        t.map(TOP..TOP + 0x3000, 0x5000, Rights::CODE, Size::Small).unwrap();
        let last = 0xffff_ffff_ffff_f000u64;
        t.map(last..last + 0xfff, 0x9000, Rights::CONSTANT, Size::Small).unwrap();
        assert_eq!(t.translate(TOP + 0x2001).unwrap(), (0x7001, Rights::CODE));
        assert_eq!(t.translate(last + 7).unwrap(), (0x9007, Rights::CONSTANT));
    }

    #[test]
    fn what_is_unmapped_is_told_and_its_tables_go() {
        let mut t = tables();
        let base = 0xffff_c000_0000_0000u64;
        let before = t.tables.tables.len();
        t.map(base..base + 0x1000, 0x7000, Rights::DATA, Size::Small).unwrap();
        t.map(base + 0x4020_0000..base + 0x4040_0000, 0x60_0000, Rights::DATA, Size::Large)
            .unwrap();
        assert!(
            !t.is_empty(base..base + 0x10_0000)
                && !t.is_empty(base + 0x4030_0000..base + (1 << 31))
        );
        assert!(t.is_empty(base + 0x1000..base + 0x4020_0000));
        let mut gone = Vec::new();
        t.unmap(base..base + (512 << 30), &mut |at, size| gone.push((at, size)));
        assert_eq!(gone, [(0x7000, Size::Small), (0x60_0000, Size::Large)]);
        assert_eq!(t.tables.tables.len(), before);
        assert_eq!(t.translate(base), None);
    }

    #[test]
    fn a_lack_of_memory_is_an_error() {
        let mut t = PageTables::new(Pretend { limit: 3, ..Pretend::default() }).unwrap();
        assert_eq!(t.map(TOP..TOP + 0x1000, 0, Rights::CODE, Size::Small), Err(NoMemory));
        assert_eq!(t.translate(TOP), None);
    }
}
