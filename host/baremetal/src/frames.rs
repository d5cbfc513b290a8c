//! Physical memory in frames of `4096 << order` bytes, naturally aligned: a buddy allocator.
//!
//! Order of calls: [`Frames::new`], [`Frames::add`] for each free range, then
//! [`Frames::alloc`] and [`Frames::free`]. Memory that was never handed out is never touched, so
//! start-up costs the same however much there is: whole chunks of the largest order are kept as
//! ranges, and a chunk's map is written when the chunk is first split.
//!
//! A chunk's map has one bit for each frame of each order, in the order of a binary heap: bit 1 is
//! the chunk, bits 2 and 3 its halves, and so on. A set bit is a frame that lies in its order's
//! free list; the list's links are in the free frames themselves.

#![allow(unsafe_code)]

use arrayvec::ArrayVec;
use core::ops::Range;

/// The smallest frame in bytes.
pub const PAGE: u64 = 4096;
/// The largest order: frames of 4 MiB.
pub const MAX_ORDER: u8 = 10;
const CHUNK: u64 = PAGE << MAX_ORDER;
const ORDERS: usize = MAX_ORDER as usize + 1;
/// Ranges of whole chunks that are kept apart; more than a memory map's worth.
const MAX_FRESH: usize = 128;

/// One bit for each frame of each order.
type Map = [u64; MAP_WORDS];
const MAP_WORDS: usize = 2 * (1 << MAX_ORDER) / 64;

/// The links of a free frame. 0 is no frame: physical page 0 is never added.
#[repr(C)]
struct Links {
    next: u64,
    previous: u64,
}

/// The allocator. It is not synchronised.
pub struct Frames {
    /// Where physical address 0 would be in the host's address space.
    window: *mut u8,
    /// Chunk maps; one that was not begun is garbage.
    maps: *mut Map,
    /// Whether each chunk's map was begun.
    begun: *mut u8,
    /// Physical addresses from here on have no chunk map and are not taken.
    end: u64,
    heads: [u64; ORDERS],
    fresh: ArrayVec<Range<u64>, MAX_FRESH>,
    free: u64,
}

// SAFETY: the pointers lead to memory that belongs to the allocator alone.
unsafe impl Send for Frames {}

impl Frames {
    /// How many bytes the tables need for memory below `end`.
    pub const fn table_size(end: u64) -> u64 {
        let chunks = end.div_ceil(CHUNK);
        (chunks * (size_of::<Map>() as u64 + 1)).next_multiple_of(PAGE)
    }

    /// An allocator for memory below `end`, empty at first.
    ///
    /// # Safety
    /// `tables` is writable for [`Frames::table_size`] bytes, aligned to 8 and used by nobody
    /// else. All memory that will be added is mapped at its address plus `window`.
    pub unsafe fn new(window: *mut u8, tables: *mut u8, end: u64) -> Self {
        let chunks = usize::try_from(end.div_ceil(CHUNK)).unwrap_or(0);
        let maps = tables.cast::<Map>();
        // SAFETY: the maps are followed by a byte for each chunk, inside of the tables.
        let begun = unsafe { maps.add(chunks).cast::<u8>() };
        // SAFETY: as above.
        unsafe { begun.write_bytes(0, chunks) };
        let fresh = ArrayVec::new();
        Self { window, maps, begun, end, heads: [0; ORDERS], fresh, free: 0 }
    }

    /// Free bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free
    }

    /// Adds free memory. What is no whole page, page 0 and what is beyond the end is left out.
    ///
    /// # Safety
    /// The range is RAM that nobody else uses, and was not added before.
    pub unsafe fn add(&mut self, range: Range<u64>) {
        let start = range.start.max(1).next_multiple_of(PAGE);
        let end = range.end.min(self.end) / PAGE * PAGE;
        let (first, last) = (start.next_multiple_of(CHUNK), end / CHUNK * CHUNK);
        if first < last && self.fresh.try_push(first..last).is_ok() {
            self.free += last - first;
            // SAFETY: parts of the range.
            unsafe {
                self.add_part(start..first);
                self.add_part(last..end);
            }
        } else {
            // SAFETY: the whole range.
            unsafe { self.add_part(start..end) };
        }
    }

    /// Adds memory frame by frame.
    ///
    /// # Safety
    /// As for [`Frames::add`], with page-aligned ends below the end.
    unsafe fn add_part(&mut self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            self.begin(at);
            let fits = |order: &u8| {
                let size = PAGE << order;
                at.is_multiple_of(size) && size <= range.end - at
            };
            let order = (0..=MAX_ORDER).rev().find(fits).unwrap_or(0);
            // SAFETY: as the caller promises, nobody uses it.
            unsafe { self.free(at, order) };
            at += PAGE << order;
        }
    }

    /// A frame whose contents are garbage.
    pub fn alloc(&mut self, order: u8) -> Option<u64> {
        if order > MAX_ORDER {
            return None;
        }
        let mut found = order;
        while found <= MAX_ORDER && self.heads[usize::from(found)] == 0 {
            found += 1;
        }
        let at = if found <= MAX_ORDER {
            let at = self.heads[usize::from(found)];
            self.unlink(at, found);
            at
        } else {
            self.take_fresh()?
        };
        let mut have = found.min(MAX_ORDER);
        while have > order {
            have -= 1;
            self.link(at + (PAGE << have), have);
        }
        self.free -= PAGE << order;
        Some(at)
    }

    /// Gives a frame back.
    ///
    /// # Safety
    /// It came from [`Frames::alloc`] with this order, and nobody uses it any more.
    pub unsafe fn free(&mut self, at: u64, order: u8) {
        self.free += PAGE << order;
        let (mut at, mut order) = (at, order);
        while order < MAX_ORDER && self.is_free(at ^ (PAGE << order), order) {
            let buddy = at ^ (PAGE << order);
            self.unlink(buddy, order);
            at = at.min(buddy);
            order += 1;
        }
        self.link(at, order);
    }

    /// The first chunk that was never used.
    fn take_fresh(&mut self) -> Option<u64> {
        let range = self.fresh.last_mut()?;
        let at = range.start;
        range.start += CHUNK;
        if range.is_empty() {
            self.fresh.pop();
        }
        self.begin(at);
        Some(at)
    }

    /// Clears the map of a chunk, the first time.
    fn begin(&mut self, at: u64) {
        let chunk = usize::try_from(at / CHUNK).unwrap_or(0);
        // SAFETY: all addresses here are below the end, so the chunk has a byte and a map.
        unsafe {
            if self.begun.add(chunk).replace(1) == 0 {
                self.maps.add(chunk).write([0; MAP_WORDS]);
            }
        }
    }

    /// The word and the bit that stand for a frame.
    fn bit(&mut self, at: u64, order: u8) -> (&mut u64, u64) {
        let chunk = usize::try_from(at / CHUNK).unwrap_or(0);
        let index = (1 << (MAX_ORDER - order)) + at % CHUNK / (PAGE << order);
        let word = usize::try_from(index / 64).unwrap_or(0);
        // SAFETY: the chunk has a map, begun before a frame of it came here; the index is below
        // twice the number of pages in a chunk.
        let map = unsafe { &mut *self.maps.add(chunk) };
        (&mut map[word], 1 << (index % 64))
    }

    fn is_free(&mut self, at: u64, order: u8) -> bool {
        let (word, bit) = self.bit(at, order);
        *word & bit != 0
    }

    fn links(&self, at: u64) -> *mut Links {
        let at = usize::try_from(at).unwrap_or(0);
        self.window.wrapping_add(at).cast::<Links>()
    }

    fn link(&mut self, at: u64, order: u8) {
        let (word, bit) = self.bit(at, order);
        *word |= bit;
        let next = core::mem::replace(&mut self.heads[usize::from(order)], at);
        // SAFETY: free frames belong to the allocator and are mapped.
        unsafe {
            self.links(at).write(Links { next, previous: 0 });
            if next != 0 {
                (*self.links(next)).previous = at;
            }
        }
    }

    fn unlink(&mut self, at: u64, order: u8) {
        let (word, bit) = self.bit(at, order);
        *word &= !bit;
        // SAFETY: as in `link`; the frame and its neighbours are in the list.
        unsafe {
            let Links { next, previous } = self.links(at).read();
            match previous {
                0 => self.heads[usize::from(order)] = next,
                previous => (*self.links(previous)).next = next,
            }
            if next != 0 {
                (*self.links(next)).previous = previous;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::vec::Vec;

    /// Physical memory from CHUNK on, and the allocator over it.
    pub(crate) struct Machine {
        memory: *mut u8,
        _tables: Vec<u64>,
        pub frames: Frames,
        layout: Layout,
    }

    impl Machine {
        pub fn new(ranges: &[Range<u64>], end: u64) -> Self {
            let size = usize::try_from(end - CHUNK).unwrap();
            let layout = Layout::from_size_align(size, 1 << 22).unwrap();
            // SAFETY: not of size 0.
            let memory = unsafe { alloc_zeroed(layout) };
            let window = memory.wrapping_sub(usize::try_from(CHUNK).unwrap());
            let mut tables =
                std::vec![u64::MAX; usize::try_from(Frames::table_size(end)).unwrap() / 8];
            // SAFETY: the tables live as long as the allocator.
            let mut frames = unsafe { Frames::new(window, tables.as_mut_ptr().cast(), end) };
            for range in ranges {
                // SAFETY: inside of `memory`.
                unsafe { frames.add(range.clone()) };
            }
            Self { memory, _tables: tables, frames, layout }
        }

        /// The allocator, which is not to outlive the machine.
        pub fn take_frames(&mut self) -> Frames {
            // SAFETY: an allocator of nothing has no tables.
            let none = unsafe { Frames::new(self.memory, self.memory, 0) };
            core::mem::replace(&mut self.frames, none)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.memory, self.layout) };
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::testing::Machine;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn everything_can_be_had_once_and_comes_back_whole() {
        let ranges = [CHUNK + 0x3000..3 * CHUNK + 0x5800, 3 * CHUNK + 0x8000..4 * CHUNK];
        let mut machine = Machine::new(&ranges, 4 * CHUNK);
        let all = machine.frames.free_bytes();
        assert_eq!(all, 3 * CHUNK - 0x3000 - 0x3000);
        for order in 0..=MAX_ORDER {
            let mut taken = Vec::new();
            while let Some(at) = machine.frames.alloc(order) {
                assert!(at.is_multiple_of(PAGE << order));
                assert!(ranges.iter().any(|r| r.start <= at && at + (PAGE << order) <= r.end));
                taken.push(at);
            }
            taken.sort_unstable();
            assert!(taken.windows(2).all(|pair| pair[0] + (PAGE << order) <= pair[1]));
            if order == 0 {
                assert_eq!(taken.len() as u64, all / PAGE);
            }
            for at in taken {
                // SAFETY: taken with this order above.
                unsafe { machine.frames.free(at, order) };
            }
            assert_eq!(machine.frames.free_bytes(), all);
        }
        assert!(machine.frames.alloc(MAX_ORDER).is_some());
        assert!(machine.frames.alloc(MAX_ORDER + 1).is_none());
    }

    #[test]
    fn any_order_of_calls_keeps_frames_apart() {
        let mut machine = Machine::new(&[CHUNK..3 * CHUNK], 3 * CHUNK);
        let all = machine.frames.free_bytes();
        let mut held: Vec<(u64, u8)> = Vec::new();
        let mut random = 1u64;
        for _ in 0..4000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let order = u8::try_from((random >> 33) % 8).unwrap();
            let give = (random >> 60) < 7 && !held.is_empty();
            if give {
                let index = usize::try_from((random >> 40) % held.len() as u64).unwrap();
                let (at, order) = held.swap_remove(index);
                // SAFETY: held, so allocated with this order.
                unsafe { machine.frames.free(at, order) };
            } else if let Some(at) = machine.frames.alloc(order) {
                let end = at + (PAGE << order);
                assert!(held.iter().all(|(b, o)| *b + (PAGE << o) <= at || end <= *b));
                held.push((at, order));
            }
            let sum: u64 = held.iter().map(|(_, order)| PAGE << order).sum();
            assert_eq!(machine.frames.free_bytes() + sum, all);
        }
        for (at, order) in held.drain(..) {
            // SAFETY: as above.
            unsafe { machine.frames.free(at, order) };
        }
        assert!(machine.frames.alloc(10).is_some() && machine.frames.alloc(10).is_some());
        assert!(machine.frames.alloc(0).is_none());
    }

    #[test]
    fn page_0_and_what_is_beyond_the_end_are_left_out() {
        let mut machine = Machine::new(&[], 2 * CHUNK);
        // SAFETY: nothing of it is inside of the end but the last page.
        unsafe { machine.frames.add(2 * CHUNK - PAGE..9 * CHUNK) };
        assert_eq!(machine.frames.alloc(0), Some(2 * CHUNK - PAGE));
        assert_eq!(machine.frames.alloc(0), None);
    }
}
