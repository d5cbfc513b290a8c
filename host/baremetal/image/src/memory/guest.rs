//! RAM of guests: made and zeroed at the first touch, by the guest or by the host for it.
//!
//! The host sees a guest's RAM in a window of addresses of its own, where a page fault makes what
//! is missing. The window's page tables are also the record of which frames the guest has.
//!
//! All memory is promised when a guest is made, its RAM and at worst a page table for every 2 MiB
//! of it, here and in the backend. So a touch never fails: a guest that does not fit is refused at
//! once, and nothing else takes what is promised.

use super::{Promise, space};
use crate::cpu::register;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use backend_native::{Frame, GuestRam, HostPhys, tables_below_root};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use host_baremetal::frames::PAGE;
use host_baremetal::windows::{UNIT, Windows};
use hypervisor::memory::{Gpa, GuestMemory, HostBlock};
use hypervisor::sync::Mutex;

/// Where the windows are: a quarter of what lies above.
const AREA: Range<u64> = 0xffff_c000_0000_0000..0xffff_d000_0000_0000;

/// Frames grow as a guest grows: so many touches get 4 KiB each, the next 64 KiB, then 2 MiB.
const SMALL_TOUCHES: u64 = 64;
const MIDDLE_TOUCHES: u64 = 512;
const ORDERS: [u8; 3] = [9, 4, 0];

static WINDOWS: Mutex<Windows> = Mutex::new(Windows::new(AREA));
/// By the address where they begin. Taken before the address space's lock.
static GUESTS: Mutex<BTreeMap<u64, Weak<Inner>>> = Mutex::new(BTreeMap::new());

/// A window, the frames in it and what is promised for it. They are given back when nobody uses
/// them any more: every [`GuestMemory`] of this RAM shares it.
struct Inner {
    /// Where guest-physical address 0 appears.
    base: u64,
    ranges: Vec<Range<u64>>,
    /// All that this guest may still take.
    promise: Arc<Promise>,
    touches: AtomicU64,
}

/// One guest's RAM.
pub struct Ram {
    memory: GuestMemory,
    inner: Arc<Inner>,
}

impl Ram {
    /// RAM at these guest-physical ranges, and so many frames for the backend's tables. `None` where
    /// there is not as much free memory.
    pub fn new(ranges: &[Range<u64>], tables: u64) -> Option<Self> {
        let end = ranges.iter().map(|range| range.end).max()?;
        let size: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        // Wherever the window will be, one of these is as many tables: it begins at a multiple of
        // what a directory maps, and may cross once more what the table above that maps.
        let own = 1 + tables_below_root(ranges.iter().cloned());
        let bytes = tables.checked_add(own)?.checked_mul(PAGE)?.checked_add(size)?;
        let promise = Arc::new(Promise::new(bytes)?);
        let base = window(end)?;
        let inner =
            Arc::new(Inner { base, ranges: ranges.to_vec(), promise, touches: AtomicU64::new(0) });
        let mut memory = GuestMemory::new();
        for range in ranges {
            let place = usize::try_from(base + range.start).ok()?;
            let host = core::ptr::with_exposed_provenance_mut(place);
            let (gpa, len) = (Gpa(range.start), range.end - range.start);
            // SAFETY: what is not mapped there is, at the first touch, until `inner` is dropped.
            let block = unsafe { HostBlock::new(gpa, len, host, inner.clone()) };
            // The ranges are disjoint.
            let _ = memory.add(block);
        }
        GUESTS.lock().insert(base, Arc::downgrade(&inner));
        Some(Self { memory, inner })
    }
}

/// A window of `size` bytes that no processor remembers.
fn window(size: u64) -> Option<u64> {
    let mut windows = WINDOWS.lock();
    let before = windows.rounds();
    let base = windows.take(size);
    if windows.rounds() != before {
        space::flush_everywhere();
    }
    base
}

impl Inner {
    /// The frame at a guest-physical address, made if need be; `None` where there is no RAM.
    fn frame(&self, at: u64) -> Option<(u64, u8)> {
        let range = self.ranges.iter().find(|range| range.contains(&at))?;
        let mut found = None;
        space::with(|space| {
            found = space.frame(self.base + at).or_else(|| self.make(space, range, at));
        });
        found
    }

    /// Makes the frame at an address, as large as it may be where nothing is yet.
    fn make(
        &self,
        space: &mut space::Access<'_>,
        range: &Range<u64>,
        at: u64,
    ) -> Option<(u64, u8)> {
        let touches = self.touches.fetch_add(1, Ordering::Relaxed);
        let largest = if touches < SMALL_TOUCHES {
            0
        } else if touches < MIDDLE_TOUCHES {
            4
        } else {
            9
        };
        for order in ORDERS.into_iter().filter(|order| *order <= largest) {
            let size = 4096u64 << order;
            let start = at & !(size - 1);
            let inside = range.start <= start && start + size <= range.end;
            if !inside || !space.is_empty(self.base + start, order) {
                continue;
            }
            let Some(frame) = self.promise.take(order) else { continue };
            space.map(self.base + start, frame, size, &self.promise)?;
            return Some((frame, order));
        }
        None
    }
}

// SAFETY: a frame is in one guest's window until that is gone; it was zeroed when it was made.
unsafe impl GuestRam for Ram {
    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }

    fn frame(&self, at: Gpa) -> Option<Frame> {
        let (frame, order) = self.inner.frame(at.0)?;
        Some(Frame { at: HostPhys(frame), order })
    }

    fn table(&self) -> Option<HostPhys> {
        self.inner.promise.take(0).map(HostPhys)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Self { base, ref ranges, .. } = *self;
        GUESTS.lock().remove(&base);
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        space::unmap_window(base..base + end.next_multiple_of(UNIT));
        WINDOWS.lock().give_back(base, end);
    }
}

/// A page fault of the host at `at`: whether it was RAM of a guest, which is there now.
pub fn fault(at: u64) -> bool {
    if !AREA.contains(&at) {
        return false;
    }
    let guests = GUESTS.lock();
    let guest = guests.range(..=at).next_back().and_then(|(_, guest)| guest.upgrade());
    drop(guests);
    guest.is_some_and(|guest| {
        let made = guest.frame(at - guest.base).is_some();
        // The processor may remember that there was nothing.
        register::flush_page(usize::try_from(at).unwrap_or(0));
        made
    })
}
