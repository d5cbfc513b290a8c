//! Four levels of second-level page tables, filled as the guest touches its memory.
//!
//! Entries go from nothing to a mapping while the guest runs, and never back: what may be done
//! with memory is settled before the first vCPU is made. So no processor has to be told to forget
//! one, and readers need no lock. Writers are serialized by the lock that the tables are in.

#![allow(unsafe_code)]

use super::{Format, PAGE};
use crate::{GuestRam, HostPhys, Platform};
use core::marker::PhantomData;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use hypervisor::memory::Perms;

const LEVELS: u32 = 4;
const ENTRIES: u64 = 512;
/// Guest-physical addresses have 48 bits here.
pub(crate) const END: u64 = 1 << 48;

/// What is to be mapped: pieces of memory of `4096 << order` bytes, aligned on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Guest-physical address.
    pub gpa: u64,
    /// Where it is.
    pub at: HostPhys,
    /// 0, 9 or 18: 4 KiB, 2 MiB or 1 GiB.
    pub order: u8,
    /// How many of this size in a row, in one table.
    pub count: u64,
    /// What the guest may do.
    pub perms: Perms,
}

/// The most page tables below a root that page-aligned, ascending, disjoint ranges of addresses can
/// need: as if each page of them were mapped by itself.
pub fn tables_below_root(ranges: impl Iterator<Item = Range<u64>> + Clone) -> u64 {
    let spans = (1..LEVELS).map(|level| 12 + 9 * level);
    let count = |shift: u32| {
        // The first span that was not counted yet.
        let mut next = 0;
        ranges.clone().filter(|range| !range.is_empty()).fold(0, |sum, range| {
            let end = ((range.end - 1) >> shift) + 1;
            let start = (range.start >> shift).max(next);
            next = end;
            sum + end.saturating_sub(start)
        })
    };
    spans.map(count).sum()
}

/// One guest's tables.
pub(crate) struct Tables<P: Platform, F: Format> {
    platform: &'static P,
    root: HostPhys,
    format: PhantomData<F>,
}

impl<P: Platform, F: Format> Tables<P, F> {
    /// Tables that map nothing, over this frame of zeros ([`GuestRam::table`]).
    pub fn new(platform: &'static P, root: HostPhys) -> Self {
        Self { platform, root, format: PhantomData }
    }

    /// Where the processor finds them.
    pub fn root(&self) -> HostPhys {
        self.root
    }

    /// Maps a piece where nothing is mapped, or the same by another vCPU meanwhile; what is there
    /// stays. Tables come from `ram`; `false` where it has none left.
    pub fn map(&mut self, leaf: Leaf, ram: &P::Ram) -> bool {
        let last = u32::from(leaf.order) / 9;
        let mut table = self.root;
        for level in (last + 1..LEVELS).rev() {
            let entry = self.entry(table, leaf.gpa, level);
            let mut value = entry.load(Ordering::Relaxed);
            if !F::is_present(value) {
                let Some(new) = ram.table() else { return false };
                value = F::table(new.0);
                // A new table is zeros before the processor can find it.
                entry.store(value, Ordering::Release);
            } else if F::is_large(value) {
                return true;
            }
            table = HostPhys(F::address(value));
        }
        for index in 0..leaf.count {
            let offset = index * (PAGE << leaf.order);
            let entry = self.entry(table, leaf.gpa + offset, last);
            if !F::is_present(entry.load(Ordering::Relaxed)) {
                entry.store(F::leaf(leaf.at.0 + offset, leaf.perms, last > 0), Ordering::Release);
            }
        }
        true
    }

    fn entry(&self, table: HostPhys, gpa: u64, level: u32) -> &AtomicU64 {
        let index = gpa >> (12 + 9 * level) & (ENTRIES - 1);
        let index = usize::try_from(index).unwrap_or(0);
        // SAFETY: a table is a page of ours until the tables are dropped, and the index is below
        // 512. The processor's own accesses are atomic too.
        unsafe { AtomicU64::from_ptr(self.platform.virt(table).cast::<u64>().add(index)) }
    }

    fn free(&self, table: HostPhys, level: u32) {
        for index in 0..ENTRIES {
            let value = self.entry(table, index << (12 + 9 * level), level).load(Ordering::Relaxed);
            if level > 0 && F::is_present(value) && !F::is_large(value) {
                self.free(HostPhys(F::address(value)), level - 1);
            }
        }
        // SAFETY: from `GuestRam::table`; the guest is gone, and every CPU that has run it
        // gets a new ASID for whoever it runs next.
        unsafe { self.platform.free(table, 0) };
    }
}

impl<P: Platform, F: Format> Drop for Tables<P, F> {
    fn drop(&mut self) {
        self.free(self.root, LEVELS - 1);
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use crate::testing::{Board, board};
    use crate::x86_64::memory::Npt;

    fn leaf(gpa: u64, at: u64, order: u8, count: u64) -> Leaf {
        Leaf { gpa, at: HostPhys(at), order, count, perms: Perms::all() }
    }

    /// Tables, and RAM with room for so many below the root.
    fn tables(board: &'static Board, below: u64) -> (Tables<Board, Npt>, <Board as Platform>::Ram) {
        let ram = board.guest_ram(&[], 1 + below).unwrap();
        (Tables::new(board, ram.table().unwrap()), ram)
    }

    /// What the processor would find.
    fn find(tables: &Tables<Board, Npt>, gpa: u64) -> Option<u64> {
        let mut table = tables.root();
        for level in (0..LEVELS).rev() {
            let value = tables.entry(table, gpa, level).load(Ordering::Relaxed);
            if !Npt::is_present(value) {
                return None;
            }
            if level == 0 || Npt::is_large(value) {
                let size = PAGE << (9 * level);
                return Some(Npt::address(value) + gpa % size);
            }
            table = HostPhys(Npt::address(value));
        }
        None
    }

    #[test]
    fn pieces_of_every_size_are_found_and_frames_go_back() {
        let board = board();
        let before = board.frames();
        let (mut tables, ram) = tables(board, 9);
        assert!(tables.map(leaf(0x1000, 0x7000, 0, 1), &ram));
        assert!(tables.map(leaf(0x1_0000, 0x10_0000, 0, 16), &ram));
        assert!(tables.map(leaf(0x20_0000, 0x4000_0000, 9, 1), &ram));
        assert!(tables.map(leaf(1 << 30, 2 << 30, 18, 1), &ram));
        assert_eq!(find(&tables, 0x1234), Some(0x7234));
        assert_eq!(find(&tables, 0x0fff), None);
        assert_eq!(find(&tables, 0x2000), None);
        assert_eq!(find(&tables, 0x1_ffff), Some(0x10_ffff));
        assert_eq!(find(&tables, 0x2_0000), None);
        assert_eq!(find(&tables, 0x3f_ffff), Some(0x401f_ffff));
        assert_eq!(find(&tables, (1 << 30) + 0x1234_5678), Some((2 << 30) + 0x1234_5678));
        drop(tables);
        assert_eq!(board.frames(), before);
    }

    #[test]
    fn what_is_mapped_stays_as_it_is() {
        let board = board();
        let (mut tables, ram) = tables(board, 9);
        assert!(tables.map(leaf(0x20_0000, 0x4000_0000, 9, 1), &ram));
        assert!(tables.map(leaf(0x20_1000, 0x7000, 0, 1), &ram));
        assert!(tables.map(leaf(0x20_0000, 0x8000_0000, 9, 1), &ram));
        assert_eq!(find(&tables, 0x20_1000), Some(0x4000_1000));
    }

    #[test]
    fn tables_are_counted_for_the_worst_case() {
        let most = |ranges: &[Range<u64>]| tables_below_root(ranges.iter().cloned());
        assert_eq!(most(&[]), 0);
        assert_eq!(most(&[0..PAGE]), 3);
        assert_eq!(most(&[0..2 << 20]), 3);
        assert_eq!(most(&[0..(2 << 20) + PAGE]), 4);
        assert_eq!(most(&[0..1 << 30]), 512 + 1 + 1);
        assert_eq!(most(&[0..PAGE, 0x10_0000..0x20_1000]), 4, "one table has two ranges");
        assert_eq!(most(&[0..3 << 30, 4 << 30..5 << 30]), 4 * 512 + 4 + 1);
        assert_eq!(most(&[(512 << 30) - PAGE..(512 << 30) + PAGE]), 6);
        assert_eq!(most(&[END - PAGE..END]), 3);
    }

    /// One page in every 2 MiB, in two ranges, with no memory but what was promised.
    #[test]
    fn a_guest_that_touches_sparsely_has_all_its_tables() {
        let board = board();
        let ranges = [0..PAGE, 6 << 20..(1 << 30) + (8 << 20), 4 << 30..(4 << 30) + (64 << 20)];
        let most = tables_below_root(ranges.iter().cloned());
        let (mut tables, ram) = tables(board, most);
        board.fail(true);
        for range in &ranges {
            for gpa in (range.start..range.end).step_by(2 << 20) {
                assert!(tables.map(leaf(gpa, 0x7000, 0, 1), &ram), "{gpa:#x}");
                assert_eq!(find(&tables, gpa), Some(0x7000));
            }
        }
        // There was one table for each, and the directories above them, and no more.
        assert_eq!(ram.table(), None);
        assert!(!tables.map(leaf(8 << 30, 0x7000, 0, 1), &ram));
        board.fail(false);
    }
}
