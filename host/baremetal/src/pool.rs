//! Who may take which of the machine's frames, so that nobody runs out of what was promised.
//!
//! Free memory is divided by count. In this order it belongs to:
//!
//! 1. **promises**: what guests will take, when they touch their RAM ([`Pool::promise`]). Only who
//!    holds a promise takes from it ([`Pool::alloc_promised`]), and it is always there;
//! 2. what is **kept** for the heap ([`Pool::keep`]): the host's own words and the small things
//!    that a VM's life needs after it was made. The heap may always take this
//!    ([`Pool::alloc_for_heap`]);
//! 3. whoever makes something new ([`Pool::alloc`]).
//!
//! Counts say nothing of contiguity: memory may be free in single pages. So one piece of
//! [`RESERVE`] is set aside for the heap besides, to be taken when it gets nothing else as large.
//! Nothing new is begun until it is there again ([`Pool::has_room`]).

use crate::frames::{Frames, PAGE};

/// The order of the piece that is set aside for the heap: 1 MiB.
pub const RESERVE_ORDER: u8 = 8;
/// Its bytes.
pub const RESERVE: u64 = PAGE << RESERVE_ORDER;

/// The machine's frames. It is not synchronised.
pub struct Pool {
    frames: Frames,
    /// Bytes that were promised and not taken yet. There are always as many free.
    promised: u64,
    /// Bytes that are kept for the heap. What the heap has taken of them is still counted: it comes
    /// back to the heap when it is freed there.
    kept: u64,
    /// The piece that is set aside.
    reserve: Option<u64>,
}

impl Pool {
    /// Nothing promised, kept or set aside yet.
    pub const fn new(frames: Frames) -> Self {
        Self { frames, promised: 0, kept: 0, reserve: None }
    }

    /// The frames, to add to them.
    pub fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }

    /// Bytes that nobody has taken, those that are set aside among them.
    pub fn untaken(&self) -> u64 {
        self.frames.free_bytes() + self.reserve.map_or(0, |_| RESERVE)
    }

    /// Bytes that are neither taken, promised, kept nor set aside.
    pub fn available(&self) -> u64 {
        self.frames.free_bytes().saturating_sub(self.promised).saturating_sub(self.kept)
    }

    /// Bytes that were promised and not taken.
    pub fn promised(&self) -> u64 {
        self.promised
    }

    /// Whether so many bytes are available, and the reserve is there. It is set aside if need be.
    pub fn has_room(&mut self, bytes: u64) -> bool {
        if self.reserve.is_none() {
            self.reserve = self.alloc(RESERVE_ORDER);
        }
        self.reserve.is_some() && self.available() >= bytes
    }

    /// A frame for something new.
    pub fn alloc(&mut self, order: u8) -> Option<u64> {
        if self.available() < PAGE << order { None } else { self.frames.alloc(order) }
    }

    /// Promises so many bytes, if they are available.
    pub fn promise(&mut self, bytes: u64) -> bool {
        let fits = self.available() >= bytes;
        self.promised += if fits { bytes } else { 0 };
        fits
    }

    /// Takes back what was promised and not taken.
    pub fn take_back(&mut self, bytes: u64) {
        self.promised = self.promised.saturating_sub(bytes);
    }

    /// A frame out of what was promised to the caller. One of order 0 is always there; larger ones
    /// may not be, as memory is free in pieces.
    pub fn alloc_promised(&mut self, order: u8) -> Option<u64> {
        let at = self.frames.alloc(order)?;
        self.promised = self.promised.saturating_sub(PAGE << order);
        Some(at)
    }

    /// Keeps so many bytes for the heap, if they are available.
    pub fn keep(&mut self, bytes: u64) -> bool {
        let fits = self.available() >= bytes;
        self.kept += if fits { bytes } else { 0 };
        fits
    }

    /// Keeps so many bytes no longer.
    pub fn keep_no_more(&mut self, bytes: u64) {
        self.kept = self.kept.saturating_sub(bytes);
    }

    /// Memory for the heap: a frame of the order that it would like to have, or of at least the
    /// smaller one that it needs. Gives the frame's order, too.
    pub fn alloc_for_heap(&mut self, liked: u8, needed: u8) -> Option<(u64, u8)> {
        for order in [liked, needed] {
            if self.frames.free_bytes().saturating_sub(self.promised) >= PAGE << order
                && let Some(at) = self.frames.alloc(order)
            {
                return Some((at, order));
            }
        }
        if needed > RESERVE_ORDER {
            return None;
        }
        self.reserve.take().map(|at| (at, RESERVE_ORDER))
    }

    /// Gives a frame back.
    ///
    /// # Safety
    /// It came from here with this order, or is a frame within one that did, and nobody uses it any
    /// more.
    #[allow(unsafe_code)]
    pub unsafe fn free(&mut self, at: u64, order: u8) {
        // SAFETY: as the caller promises.
        unsafe { self.frames.free(at, order) };
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::frames::testing::Machine;
    use std::vec::Vec;

    const CHUNK: u64 = 4 << 20;

    /// Two chunks.
    fn machine() -> Machine {
        #[allow(clippy::single_range_in_vec_init)]
        Machine::new(&[CHUNK..3 * CHUNK], 3 * CHUNK)
    }

    fn drain(mut take: impl FnMut() -> Option<u64>) -> u64 {
        core::iter::from_fn(&mut take).count() as u64 * PAGE
    }

    #[test]
    fn what_is_promised_is_there_to_the_last_page_whatever_others_take() {
        let mut machine = machine();
        let mut pool = Pool::new(machine.take_frames());
        assert!(pool.has_room(CHUNK) && pool.keep(3 * PAGE));
        let promised = 2 * CHUNK - RESERVE - 8 * PAGE;
        assert!(pool.promise(promised) && !pool.promise(6 * PAGE) && !pool.keep(6 * PAGE));
        assert_eq!(pool.available(), 5 * PAGE);
        assert_eq!(drain(|| pool.alloc(0)), 5 * PAGE);
        assert_eq!(
            drain(|| pool.alloc_for_heap(0, 0).filter(|(_, order)| *order == 0).map(|f| f.0)),
            3 * PAGE
        );
        // The reserve went to the heap with the last question.
        assert!(!pool.has_room(0));
        let taken = (0..promised / PAGE).filter_map(|_| pool.alloc_promised(0)).count();
        assert_eq!(taken as u64, promised / PAGE);
        assert_eq!((pool.untaken(), pool.alloc_for_heap(0, 0)), (0, None));
    }

    #[test]
    fn the_heap_gets_a_whole_piece_where_memory_is_free_in_single_pages() {
        let mut machine = machine();
        let mut pool = Pool::new(machine.take_frames());
        assert!(pool.has_room(0));
        let mut pages: Vec<u64> = core::iter::from_fn(|| pool.alloc(0)).collect();
        pages.sort_unstable();
        for at in pages.iter().copied().filter(|at| (at / PAGE).is_multiple_of(2)) {
            // SAFETY: taken above.
            unsafe { pool.free(at, 0) };
        }
        let (_, order) = pool.alloc_for_heap(4, 0).unwrap();
        assert_eq!(order, 0, "what it needs, where there is not what it likes");
        let (_, order) = pool.alloc_for_heap(4, 4).unwrap();
        assert_eq!(order, RESERVE_ORDER);
        assert_eq!(pool.alloc_for_heap(4, 4), None);
        assert!(!pool.has_room(0), "nothing new is begun without the reserve");
        for at in pages.iter().copied().filter(|at| !(at / PAGE).is_multiple_of(2)) {
            // SAFETY: as above.
            unsafe { pool.free(at, 0) };
        }
        assert!(pool.has_room(PAGE) && pool.alloc_for_heap(4, 4).unwrap().1 == 4);
    }

    #[test]
    fn what_is_taken_back_can_be_promised_again() {
        let mut machine = machine();
        let mut pool = Pool::new(machine.take_frames());
        assert!(pool.promise(2 * CHUNK) && !pool.promise(1) && pool.alloc(0).is_none());
        pool.take_back(CHUNK);
        assert!(
            pool.keep(CHUNK) && !pool.promise(1) && !pool.keep(u64::MAX) && !pool.promise(u64::MAX)
        );
        assert!(pool.alloc_for_heap(10, 0).is_some() && pool.available() == 0);
        pool.keep_no_more(CHUNK);
        assert_eq!((pool.available(), pool.untaken()), (0, CHUNK));
        pool.take_back(CHUNK);
        assert_eq!(pool.available(), CHUNK);
    }
}
