//! The heap: talc over frames. It grows by 64 KiB, or by what is asked for, at worst out of what is
//! kept and set aside for it ([`host_baremetal::pool`]).
//!
//! An allocation that fails ends the machine wherever Rust's collections do not ask first. So what a
//! running guest makes the host allocate is bounded, and was allocated, promised or kept when its VM
//! was made; and nothing is made without room for what its making allocates.

use super::{alloc_for_heap, window};
use core::alloc::Layout;
use core::sync::atomic::{AtomicBool, Ordering};
use lock_api::{GuardSend, RawMutex};
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

/// What the heap grows by where it can: a frame of this order.
const GROWTH: u8 = 4;
/// The largest frame that there is.
const LARGEST: u8 = 10;

#[global_allocator]
static HEAP: TalcLock<Spin, FromFrames> = TalcLock::new(FromFrames);

/// A spin lock in the form that talc wants.
struct Spin(AtomicBool);

// SAFETY: the swap lets one caller at a time pass.
unsafe impl RawMutex for Spin {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            core::hint::spin_loop();
        }
    }

    fn try_lock(&self) -> bool {
        !self.0.swap(true, Ordering::Acquire)
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Gives talc frames.
#[derive(Debug)]
struct FromFrames;

// SAFETY: it neither uses the heap nor keeps state.
unsafe impl Source for FromFrames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let first = talc::min_first_heap_layout::<B>().size();
        // talc's own headers and alignment.
        let needed = layout.size() + layout.align() + first + 64;
        let order = (0..=LARGEST).find(|order| 4096 << order >= needed).ok_or(())?;
        let (at, order) = alloc_for_heap(order.max(GROWTH), order).ok_or(())?;
        // SAFETY: the frame is the heap's from now on.
        unsafe { talc.claim(window(at), 4096 << order) }.map(drop).ok_or(())
    }
}
