//! What a boot loader says: memory, modules, a command line, where ACPI begins.
//!
//! A boot loader is trusted, but not to be free of mistakes: what it says is copied and checked,
//! and lists end at the limits below.

pub mod multiboot2;
pub mod pvh;

use arrayvec::{ArrayString, ArrayVec};
use core::ops::Range;

/// Entries of a memory map that are read.
pub const MAX_REGIONS: usize = 128;
/// Modules that are read.
pub const MAX_MODULES: usize = 4;
/// Bytes of a command line that are read.
pub const MAX_COMMAND_LINE: usize = 1024;

/// Reads physical memory.
pub trait Physical {
    /// Fills `to` from `at`. `false`, and nothing done, where there is nothing to read.
    fn read(&self, at: u64, to: &mut [u8]) -> bool;
}

/// What a region of the memory map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionKind {
    /// RAM to use.
    Ram,
    /// RAM with ACPI tables, which may be used once they have been read.
    AcpiTables,
    /// Anything else.
    Reserved,
}

/// A region of the memory map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Physical addresses.
    pub range: Range<u64>,
    /// What is there.
    pub kind: RegionKind,
}

/// What a boot loader said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootInfo {
    /// The memory map, in the loader's order.
    pub regions: ArrayVec<Region, MAX_REGIONS>,
    /// Boot modules, in the loader's order.
    pub modules: ArrayVec<Range<u64>, MAX_MODULES>,
    /// The command line.
    pub command_line: ArrayString<MAX_COMMAND_LINE>,
    /// Physical address of ACPI's root pointer, where the loader knows it.
    pub rsdp: Option<u64>,
}

/// Ranges of memory, as many as a loader's RAM and modules are at most.
pub type Mapped = ArrayVec<Range<u64>, { MAX_REGIONS + MAX_MODULES }>;

/// Why nothing could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootError {
    /// The structure does not begin with its magic number.
    Magic(u32),
    /// It, or something that it points to, is not in memory.
    Unreadable(u64),
    /// The loader gave no memory map.
    NoMemoryMap,
}

impl core::fmt::Display for BootError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic(found) => write!(f, "the boot loader's structure begins with {found:#x}"),
            Self::Unreadable(at) => write!(f, "the boot loader points to {at:#x}, no memory"),
            Self::NoMemoryMap => f.write_str(
                "the boot loader gave no memory map: boot by PVH (QEMU's -kernel) or multiboot2",
            ),
        }
    }
}

impl BootInfo {
    /// Adds a region, unless it is empty or there are too many.
    fn add_region(&mut self, start: u64, length: u64, kind: RegionKind) {
        let range = start..start.saturating_add(length);
        if !range.is_empty() {
            let _ = self.regions.try_push(Region { range, kind });
        }
    }

    /// Adds a module, unless it is empty or there are too many.
    fn add_module(&mut self, start: u64, length: u64) {
        let range = start..start.saturating_add(length);
        if !range.is_empty() {
            let _ = self.modules.try_push(range);
        }
    }

    /// Reads the command line, up to its end or the limit; what is no ASCII becomes `?`.
    fn read_command_line(&mut self, memory: &impl Physical, at: u64) {
        let mut byte = [0];
        for offset in 0..MAX_COMMAND_LINE as u64 {
            let here = at.checked_add(offset).is_some_and(|at| memory.read(at, &mut byte));
            if !here || byte[0] == 0 {
                return;
            }
            let char = if byte[0].is_ascii() { char::from(byte[0]) } else { '?' };
            let _ = self.command_line.try_push(char);
        }
    }

    /// What the image maps of memory from `low` on, in whole pages: RAM, and the modules wherever
    /// they lie. A loader may put a module, or a part of one, into memory that its map does not
    /// call RAM. The ranges are sorted, and neither overlap nor touch.
    pub fn to_map(&self, low: u64) -> Mapped {
        let page = crate::frames::PAGE;
        let ram = self.regions.iter().filter(|region| region.kind == RegionKind::Ram);
        let ram = ram.map(|Region { range, .. }| {
            range.start.max(low).next_multiple_of(page)..range.end / page * page
        });
        let modules = self.modules.iter().filter(|module| module.start >= low).map(|module| {
            module.start / page * page..module.end.checked_next_multiple_of(page).unwrap_or(0)
        });
        let mut ranges: Mapped = ram.chain(modules).filter(|range| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        let mut joined = Mapped::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        joined
    }

    /// What of a range of RAM nothing else lies in: `taken` are other ranges, in any order.
    /// Each free range is handed to `free`.
    pub fn without(range: Range<u64>, taken: &[Range<u64>], free: &mut dyn FnMut(Range<u64>)) {
        let mut start = range.start;
        while start < range.end {
            let inside = taken.iter().filter(|t| t.start <= start && start < t.end);
            if let Some(end) = inside.map(|t| t.end).max() {
                start = end;
                continue;
            }
            let later = taken.iter().filter(|t| t.start > start && !t.is_empty()).map(|t| t.start);
            let end = later.min().unwrap_or(range.end).min(range.end);
            free(start..end);
            start = end;
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn without(range: Range<u64>, taken: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut all = Vec::new();
        BootInfo::without(range, taken, &mut |free| all.push(free));
        all
    }

    #[test]
    fn modules_are_mapped_wherever_they_lie() {
        let mut info = BootInfo::default();
        info.add_region(0, 0x9_fc00, RegionKind::Ram);
        info.add_region(0x10_0000, 0x30_0800, RegionKind::Ram);
        info.add_region(0x40_0800, 0x1000, RegionKind::Reserved);
        info.add_region(0x50_0000, 0x1000, RegionKind::Ram);
        info.add_module(0x3f_f800, 0x2000);
        info.add_module(0x8000, 0x10);
        info.add_module(0x7000_0123, 1);
        info.add_module(0x50_0400, 0x10);
        let mapped = info.to_map(0x10_0000);
        assert_eq!(
            mapped[..],
            [0x10_0000..0x40_2000, 0x50_0000..0x50_1000, 0x7000_0000..0x7000_1000]
        );
    }

    #[test]
    fn what_is_taken_is_cut_out() {
        assert_eq!(without(10..20, &[]), [10..20]);
        assert_eq!(without(10..20, &[0..10, 20..30]), [10..20]);
        assert_eq!(without(10..20, &[12..14, 13..15]), [10..12, 15..20]);
        assert_eq!(without(10..20, &[17..40, 5..11, 14..14]), [11..17]);
        assert_eq!(without(10..20, &[0..100]), []);
        assert_eq!(without(10..10, &[]), []);
    }
}
