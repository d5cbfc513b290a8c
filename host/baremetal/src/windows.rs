//! Addresses of the host for RAM of guests: which are taken.
//!
//! Addresses are given out upwards, and again from the beginning only when the end is reached: a
//! processor that remembers an old mapping has forgotten it long before ([`Windows::rounds`] tells
//! when it has to be made to).

use alloc::vec::Vec;
use core::ops::Range;

/// Windows begin and end at multiples of this: what one page directory maps.
pub const UNIT: u64 = 1 << 30;

/// The windows in an area.
pub struct Windows {
    area: Range<u64>,
    /// Taken ranges, ascending.
    taken: Vec<Range<u64>>,
    next: u64,
    rounds: u64,
}

impl Windows {
    /// None taken yet. The area's ends are multiples of [`UNIT`].
    pub const fn new(area: Range<u64>) -> Self {
        let next = area.start;
        Self { area, taken: Vec::new(), next, rounds: 0 }
    }

    /// How often the search has begun again at the area's beginning.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// Takes a window of `size` bytes; `None` where there is no room.
    pub fn take(&mut self, size: u64) -> Option<u64> {
        let size = size.checked_next_multiple_of(UNIT).filter(|size| *size > 0)?;
        self.taken.try_reserve(1).ok()?;
        let start = match self.find(self.next, size) {
            Some(start) => start,
            None => {
                self.rounds += 1;
                self.find(self.area.start, size)?
            }
        };
        let place = self.taken.partition_point(|range| range.start < start);
        self.taken.insert(place, start..start + size);
        self.next = start + size;
        Some(start)
    }

    /// The first free address from `from` on with `size` bytes of room.
    fn find(&self, from: u64, size: u64) -> Option<u64> {
        let mut start = from;
        for range in &self.taken {
            if range.end <= start {
                continue;
            }
            if range.start >= start && range.start - start >= size {
                break;
            }
            start = range.end;
        }
        (self.area.end.checked_sub(start)? >= size).then_some(start)
    }

    /// Gives a window back that was taken with this size.
    pub fn give_back(&mut self, start: u64, size: u64) {
        let end = start.saturating_add(size.next_multiple_of(UNIT));
        self.taken.retain(|range| *range != (start..end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_apart_and_come_again_only_after_a_round() {
        let mut windows = Windows::new(4 * UNIT..8 * UNIT);
        assert_eq!(windows.take(1), Some(4 * UNIT));
        assert_eq!(windows.take(UNIT + 1), Some(5 * UNIT));
        windows.give_back(4 * UNIT, 1);
        assert_eq!((windows.take(UNIT), windows.rounds()), (Some(7 * UNIT), 0));
        assert_eq!((windows.take(5), windows.rounds()), (Some(4 * UNIT), 1));
        assert_eq!(windows.take(1), None);
        windows.give_back(5 * UNIT, UNIT + 1);
        assert_eq!(windows.take(3 * UNIT), None);
        assert_eq!(windows.take(2 * UNIT), Some(5 * UNIT));
        assert_eq!(windows.take(0), None);
        assert_eq!(windows.take(u64::MAX), None);
    }
}
