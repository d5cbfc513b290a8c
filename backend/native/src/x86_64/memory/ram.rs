//! RAM of one guest, what the guest may do with each page of it, and how a second-level fault is
//! answered: by a mapping, or by what kind of access it was.

use super::tables::{END, tables_below_root};
use super::{Format, Leaf, PAGE, Tables};
use crate::{Frame, GuestRam, HostPhys, Platform};
use alloc::vec::Vec;
use core::ops::Range;
use hypervisor::memory::{Gpa, GuestMemory, MemoryError, Perms};
use hypervisor::sync::Mutex;

/// What an access wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Execute,
}

impl Access {
    fn needs(self) -> Perms {
        match self {
            Self::Read => Perms::READ,
            Self::Write => Perms::WRITE,
            Self::Execute => Perms::EXEC,
        }
    }
}

/// What is at a guest-physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// RAM, which is mapped now: the guest tries again.
    Mapped,
    /// RAM that the guest may not access so.
    Denied,
    /// No RAM: a device, or nothing.
    Device,
    /// RAM, but the host has not kept its promise of memory.
    Exhausted,
}

/// The RAM of a guest and its second-level tables.
pub(crate) struct Backing<P: Platform, F: Format> {
    ram: P::Ram,
    ranges: Vec<Range<u64>>,
    /// Ranges with other permissions than `usual`, sorted, disjoint.
    runs: Vec<(Range<u64>, Perms)>,
    usual: Perms,
    /// The largest leaf that the processor knows, as an order.
    largest: u8,
    tables: Mutex<Tables<P, F>>,
    root: HostPhys,
}

impl<P: Platform, F: Format> Backing<P, F> {
    /// RAM at `ranges` (page-aligned, ascending, disjoint), with which the guest may do what
    /// `usual` says. `None` where there is not so much memory.
    pub fn new(
        platform: &'static P,
        ranges: &[Range<u64>],
        usual: Perms,
        largest: u8,
    ) -> Option<Self> {
        // The root, and what is below it at worst: a guest that touches its memory sparsely needs
        // a table for every 2 MiB.
        let tables = 1 + tables_below_root(ranges.iter().cloned());
        let ram = platform.guest_ram(ranges, tables)?;
        let tables = Tables::new(platform, ram.table()?);
        let root = tables.root();
        let ranges = ranges.to_vec();
        Some(Self {
            ram,
            ranges,
            runs: Vec::new(),
            usual,
            largest,
            tables: Mutex::new(tables),
            root,
        })
    }

    /// The host's view.
    pub fn memory(&self) -> &GuestMemory {
        self.ram.memory()
    }

    /// Where the processor finds the tables.
    pub fn root(&self) -> HostPhys {
        self.root
    }

    /// Restricts or widens what the guest may do with a range. Later calls win. Only before the
    /// guest runs: nothing that is mapped changes.
    pub fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), MemoryError> {
        let len = range.end.saturating_sub(range.start);
        let gpa = Gpa(range.start);
        let inside = self.ranges.iter().any(|r| r.start <= range.start && range.end <= r.end);
        if !inside || range.start > range.end {
            return Err(MemoryError::OutOfRange { gpa, len });
        }
        if !range.start.is_multiple_of(PAGE) || !range.end.is_multiple_of(PAGE) {
            return Err(MemoryError::Misaligned(gpa));
        }
        let mut runs = Vec::with_capacity(self.runs.len() + 2);
        for (old, was) in self.runs.drain(..) {
            let before = old.start..old.end.min(range.start);
            let after = old.start.max(range.end)..old.end;
            runs.extend([before, after].into_iter().filter(|r| r.start < r.end).map(|r| (r, was)));
        }
        if perms != self.usual && len > 0 {
            runs.push((range, perms));
        }
        runs.sort_by_key(|(range, _)| range.start);
        self.runs = runs;
        Ok(())
    }

    /// What the guest may do at an address, and the stretch of which that is so; `None` where
    /// there is no RAM.
    fn look(&self, gpa: u64) -> Option<(Perms, Range<u64>)> {
        let ram = self.ranges.iter().find(|range| range.contains(&gpa))?;
        let next = self.runs.partition_point(|(run, _)| run.end <= gpa);
        let start = next.checked_sub(1).map_or(ram.start, |i| self.runs[i].0.end.max(ram.start));
        match self.runs.get(next) {
            Some((run, perms)) if run.start <= gpa => Some((*perms, run.clone())),
            Some((run, _)) => Some((self.usual, start..run.start.min(ram.end))),
            None => Some((self.usual, start..ram.end)),
        }
    }

    /// What the guest may do at an address; `None` where there is no RAM.
    pub fn perms(&self, gpa: u64) -> Option<Perms> {
        self.look(gpa).map(|(perms, _)| perms)
    }

    /// Whether there is no RAM at an address.
    #[inline]
    pub fn is_device(&self, gpa: u64) -> bool {
        self.ranges.iter().all(|range| !range.contains(&gpa))
    }

    /// Answers a second-level fault.
    pub fn fault(&self, gpa: u64, access: Access) -> Found {
        let Some((perms, stretch)) = self.look(gpa).filter(|_| gpa < END) else {
            return Found::Device;
        };
        if !perms.contains(access.needs()) {
            return Found::Denied;
        }
        let Some(frame) = self.ram.frame(Gpa(gpa)) else { return Found::Exhausted };
        let leaf = self.leaf(gpa, frame, perms, &stretch);
        if self.tables.lock().map(leaf, &self.ram) { Found::Mapped } else { Found::Exhausted }
    }

    /// The largest leaf for an address: no larger than its frame, and alike all over.
    fn leaf(&self, gpa: u64, frame: Frame, perms: Perms, stretch: &Range<u64>) -> Leaf {
        let whole = PAGE << frame.order.min(36);
        let base = gpa & !(whole - 1);
        let fits = |order: &u8| {
            let start = gpa & !((PAGE << order) - 1);
            *order <= frame.order.min(self.largest)
                && stretch.start <= start
                && start + (PAGE << order) <= stretch.end
        };
        if let Some(order) = [18, 9].into_iter().find(fits) {
            let start = gpa & !((PAGE << order) - 1);
            let at = HostPhys(frame.at.0 + (start - base));
            return Leaf { gpa: start, at, order, count: 1, perms };
        }
        // All pages of the frame that are alike, of one table.
        let table = gpa & !((PAGE << 9) - 1);
        let start = base.max(stretch.start).max(table);
        let end = (base + whole).min(stretch.end).min(table + (PAGE << 9));
        let at = HostPhys(frame.at.0 + (start - base));
        Leaf { gpa: start, at, order: 0, count: (end - start) / PAGE, perms }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, clippy::reversed_empty_ranges)]
mod tests {
    use super::*;
    use crate::testing::{Board, board};
    use crate::x86_64::memory::Npt;

    const RW: Perms = Perms::READ.union(Perms::WRITE);
    const RX: Perms = Perms::READ.union(Perms::EXEC);

    fn backing(ranges: &[Range<u64>]) -> Backing<Board, Npt> {
        Backing::new(board(), ranges, RW, 18).unwrap()
    }

    #[test]
    fn the_last_protection_wins_page_by_page() {
        let mut b = backing(&[0..0x10_0000]);
        b.protect(0x1000..0x5000, Perms::READ).unwrap();
        b.protect(0x2000..0x3000, RX).unwrap();
        b.protect(0x4000..0x5000, RW).unwrap();
        let expected = [RW, Perms::READ, RX, Perms::READ, RW, RW];
        for (page, perms) in (0u64..).zip(expected) {
            assert_eq!(b.perms(page * PAGE), Some(perms), "{page}");
            assert_eq!(b.perms(page * PAGE + 4095), Some(perms), "{page}");
        }
        assert_eq!(b.perms(0x10_0000), None);
        assert_eq!(b.look(0x4000), Some((RW, 0x4000..0x10_0000)));
        assert_eq!(b.look(0), Some((RW, 0..0x1000)));
        assert!(b.protect(0..0x10_1000, RX).is_err());
        assert!(b.protect(0x10..0x1000, RX).is_err());
        assert!(b.protect(0x2000..0x1000, RX).is_err());
    }

    #[test]
    fn faults_are_answered_by_what_is_there() {
        let mut b = backing(&[0..0x8000, 0x20_0000..0x60_0000]);
        b.protect(0x1000..0x2000, RX).unwrap();
        assert_eq!(b.fault(0x1000, Access::Write), Found::Denied);
        assert_eq!(b.fault(0x1000, Access::Execute), Found::Mapped);
        assert_eq!(b.fault(0x2000, Access::Execute), Found::Denied);
        assert_eq!(b.fault(0x2000, Access::Write), Found::Mapped);
        assert_eq!(b.fault(0x8000, Access::Read), Found::Device);
        assert_eq!(b.fault(0x1f_ffff, Access::Read), Found::Device);
        assert_eq!(b.fault(u64::MAX, Access::Read), Found::Device);
    }

    #[test]
    fn leaves_are_as_large_as_they_may_be() {
        let mut b = backing(&[0..3 << 30]);
        b.protect(0x20_3000..0x20_5000, RX).unwrap();
        let leaf = |b: &Backing<Board, Npt>, gpa, order| {
            let (perms, stretch) = b.look(gpa).unwrap();
            let leaf = b.leaf(gpa, Frame { at: HostPhys(1 << 40), order }, perms, &stretch);
            (leaf.gpa, leaf.at.0 - (1 << 40), leaf.order, leaf.count)
        };
        assert_eq!(leaf(&b, 0x5000, 0), (0x5000, 0, 0, 1));
        assert_eq!(leaf(&b, 0x1_5000, 4), (0x1_0000, 0, 0, 16));
        assert_eq!(leaf(&b, 0x1234, 9), (0, 0, 9, 1));
        assert_eq!(leaf(&b, 0x20_1234, 9), (0x20_0000, 0, 0, 3), "up to what is protected");
        assert_eq!(leaf(&b, 0x20_4000, 9), (0x20_3000, 0x3000, 0, 2));
        assert_eq!(leaf(&b, 0x20_6000, 18), (0x20_5000, 0x20_5000, 0, 0x1fb));
        assert_eq!(leaf(&b, 0x40_6000, 18), (0x40_0000, 0x40_0000, 9, 1));
        assert_eq!(leaf(&b, 1 << 30, 18), (1 << 30, 0, 18, 1));
        b.largest = 9;
        assert_eq!(leaf(&b, (1 << 30) + 5, 18), (1 << 30, 0, 9, 1));
    }
}
