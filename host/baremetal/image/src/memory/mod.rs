//! Memory: the physical window, frames, the heap.

mod heap;

use core::ops::Range;
use host_baremetal::boot::{BootInfo, RegionKind};
use host_baremetal::frames::{Frames, PAGE};
use hypervisor::sync::Mutex;

/// Where physical address 0 appears.
const WINDOW: usize = 0xffff_8000_0000_0000;
/// What is mapped there.
const MAPPED: u64 = 4 << 30;
/// Below is the firmware's and the boot loader's.
const LOW: u64 = 1 << 20;
/// Where the image is linked, above where it lies.
const IMAGE_OFFSET: usize = 0xffff_ffff_8000_0000;

static FRAMES: Mutex<Option<Frames>> = Mutex::new(None);

unsafe extern "C" {
    static image_start: u8;
    static data_end: u8;
}

/// Where a physical address appears.
pub fn window(at: u64) -> *mut u8 {
    let at = usize::try_from(at).unwrap_or(0);
    core::ptr::with_exposed_provenance_mut(WINDOW.wrapping_add(at))
}

/// The physical addresses of the image.
fn image() -> Range<u64> {
    let (start, end) = (&raw const image_start, &raw const data_end);
    start.addr() as u64..(end.addr() - IMAGE_OFFSET) as u64
}

/// Takes over what RAM is free.
pub fn init(boot: &BootInfo) {
    let mut taken = boot.modules.clone();
    let room = taken.try_push(image()).is_ok();
    assert!(room, "too many boot modules");
    let ram = || boot.regions.iter().filter(|region| region.kind == RegionKind::Ram);
    let end = ram().map(|region| region.range.end).max().unwrap_or(0).min(MAPPED);
    let clipped = |range: &Range<u64>| range.start.max(LOW)..range.end.min(MAPPED);

    let size = Frames::table_size(end);
    let mut tables = None;
    for region in ram() {
        BootInfo::without(clipped(&region.range), &taken, &mut |free| {
            let start = free.start.next_multiple_of(PAGE);
            if tables.is_none() && start + size <= free.end {
                tables = Some(start..start + size);
            }
        });
    }
    let Some(tables) = tables else { panic!("no RAM for the page frame tables") };
    // SAFETY: free RAM, cut out of what is added below; the window maps all of it.
    let mut frames = unsafe { Frames::new(window(0), window(tables.start), end) };
    for region in ram() {
        BootInfo::without(clipped(&region.range), &taken, &mut |free| {
            BootInfo::without(free, core::slice::from_ref(&tables), &mut |free| {
                // SAFETY: RAM that neither image nor modules nor tables are in.
                unsafe { frames.add(free) };
            });
        });
    }
    *FRAMES.lock() = Some(frames);
}

/// Free bytes.
pub fn free() -> u64 {
    FRAMES.lock().as_ref().map_or(0, Frames::free_bytes)
}

/// A frame with garbage in it.
pub fn alloc_raw(order: u8) -> Option<u64> {
    FRAMES.lock().as_mut()?.alloc(order)
}

/// A frame of zeros.
pub fn alloc(order: u8) -> Option<u64> {
    let at = alloc_raw(order)?;
    // SAFETY: the frame is ours, as large as that, and mapped.
    unsafe { zero(window(at), 4096 << order) };
    Some(at)
}

/// Gives a frame back.
///
/// # Safety
/// It came from here with this order and nobody uses it any more.
pub unsafe fn release(at: u64, order: u8) {
    if let Some(frames) = FRAMES.lock().as_mut() {
        // SAFETY: as the caller promises.
        unsafe { frames.free(at, order) };
    }
}

/// Zeroes memory by the processor's string store.
///
/// # Safety
/// `at` is writable for `bytes`, a multiple of 8.
unsafe fn zero(at: *mut u8, bytes: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        core::arch::asm!("rep stosq", inout("rcx") bytes / 8 => _, inout("rdi") at => _, in("rax") 0u64,
            options(nostack, preserves_flags));
    }
}
