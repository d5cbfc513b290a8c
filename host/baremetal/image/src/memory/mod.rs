//! Memory: the physical window, frames, the heap, the image's own mapping, stacks.

pub mod guest;
mod heap;
pub mod space;
pub mod stack;

use crate::trace;
use core::ops::Range;
use host_baremetal::boot::{BootInfo, RegionKind};
use host_baremetal::frames::{Frames, MAX_ORDER, PAGE};
use hypervisor::sync::Mutex;

/// Where physical address 0 appears.
const WINDOW: usize = 0xffff_8000_0000_0000;
/// What `boot.s` maps there.
pub const BOOT_MAPPED: u64 = 4 << 30;
/// Below is the firmware's and the boot loader's.
const LOW: u64 = 1 << 20;
/// Where the image is linked, above where it lies.
const IMAGE_OFFSET: usize = 0xffff_ffff_8000_0000;

struct Pool {
    frames: Option<Frames>,
    /// Bytes that guests will have when they touch them.
    promised: u64,
    /// Bytes of RAM that nobody else had when this program began, itself included.
    given: u64,
}

/// A leaf lock.
static POOL: Mutex<Pool> = Mutex::new(Pool { frames: None, promised: 0, given: 0 });

unsafe extern "C" {
    static image_start: u8;
}

/// Where a physical address appears.
pub fn window(at: u64) -> *mut u8 {
    let at = usize::try_from(at).unwrap_or(0);
    core::ptr::with_exposed_provenance_mut(WINDOW.wrapping_add(at))
}

/// The physical addresses of the image.
fn image() -> Range<u64> {
    let end = trace::table().end - IMAGE_OFFSET;
    (&raw const image_start).addr() as u64..(end as u64).next_multiple_of(PAGE)
}

/// Takes over what RAM is free, and maps the image and RAM as they stay. Modules in low memory,
/// where other CPUs start, are moved.
pub fn init(boot: &mut BootInfo) {
    check_modules(boot);
    let mut taken = boot.modules.clone();
    let mut given = 0;
    each_free(boot, &taken, LOW..u64::MAX, &mut |free| given += free.end - free.start);
    let room = taken.try_push(image()).is_ok();
    assert!(room, "too many boot modules");
    let ram = || boot.regions.iter().filter(|region| region.kind == RegionKind::Ram);
    let end = ram().map(|region| region.range.end).max().unwrap_or(0);

    let tables = place_for_tables(boot, &taken, Frames::table_size(end));
    let room = taken.try_push(tables.clone()).is_ok();
    assert!(room, "too many boot modules");
    // SAFETY: free RAM, which is not added below; `boot.s` maps it, and so does `space`.
    let frames = unsafe { Frames::new(window(0), window(tables.start), end) };
    {
        let mut pool = POOL.lock();
        (pool.frames, pool.given) = (Some(frames), given);
    }
    add(boot, &taken, LOW..BOOT_MAPPED);
    for module in boot.modules.iter_mut().filter(|module| module.start < LOW) {
        let Some(moved) = move_up(module) else { panic!("no RAM for a boot module") };
        *module = moved;
    }
    space::init(boot, &image());
    add(boot, &taken, BOOT_MAPPED..u64::MAX);
}

/// Refuses modules that cannot be used where the loader has put them.
fn check_modules(boot: &BootInfo) {
    for Range { start, end } in boot.modules.iter().cloned() {
        let image = image();
        assert!(
            end <= image.start || image.end <= start,
            "the boot loader has put a module at {start:#x}..{end:#x}, over this program at \
             {:#x}..{:#x}: load it elsewhere",
            image.start,
            image.end
        );
        assert!(
            end <= space::WINDOW_SIZE,
            "the boot loader has put a module at {start:#x}..{end:#x}, above the {:#x} bytes of \
             memory that this program can use: load it lower",
            space::WINDOW_SIZE
        );
    }
}

/// Copies a module from low memory into a frame.
fn move_up(module: &Range<u64>) -> Option<Range<u64>> {
    let length = module.end - module.start;
    let order = (0..=MAX_ORDER).find(|order| 4096 << order >= length)?;
    let at = alloc_raw(order)?;
    // SAFETY: the frame is ours and as large; `boot.s` maps both.
    unsafe {
        window(module.start)
            .copy_to_nonoverlapping(window(at), usize::try_from(length).unwrap_or(0));
    }
    Some(at..at + length)
}

/// Free RAM for the frame allocator's tables, where `boot.s` maps it.
fn place_for_tables(boot: &BootInfo, taken: &[Range<u64>], size: u64) -> Range<u64> {
    let mut found = None;
    each_free(boot, taken, LOW..BOOT_MAPPED, &mut |free| {
        let start = free.start.next_multiple_of(PAGE);
        if found.is_none() && start + size <= free.end {
            found = Some(start..start + size);
        }
    });
    found.unwrap_or_else(|| panic!("no RAM for the page frame tables"))
}

/// Adds free RAM inside of `limits`.
fn add(boot: &BootInfo, taken: &[Range<u64>], limits: Range<u64>) {
    let mut pool = POOL.lock();
    let Some(frames) = pool.frames.as_mut() else { return };
    // SAFETY: RAM that is free, and mapped at the window.
    each_free(boot, taken, limits, &mut |free| unsafe { frames.add(free) });
}

fn each_free(
    boot: &BootInfo,
    taken: &[Range<u64>],
    limits: Range<u64>,
    found: &mut dyn FnMut(Range<u64>),
) {
    for region in boot.regions.iter().filter(|region| region.kind == RegionKind::Ram) {
        let range = region.range.start.max(limits.start)..region.range.end.min(limits.end);
        BootInfo::without(range, taken, found);
    }
}

/// Free bytes.
pub fn free() -> u64 {
    POOL.lock().frames.as_ref().map_or(0, Frames::free_bytes)
}

/// Bytes in use: the image, its tables, its heap, and what guests have touched.
pub fn in_use() -> u64 {
    let pool = POOL.lock();
    pool.given.saturating_sub(pool.frames.as_ref().map_or(0, Frames::free_bytes))
}

/// A frame with garbage in it. What is promised to guests is not taken.
pub fn alloc_raw(order: u8) -> Option<u64> {
    let mut pool = POOL.lock();
    let promised = pool.promised;
    let frames = pool.frames.as_mut()?;
    let size = 4096u64 << order.min(MAX_ORDER);
    if frames.free_bytes().saturating_sub(promised) < size {
        return None;
    }
    frames.alloc(order)
}

/// A frame of zeros. What is promised to guests is not taken.
pub fn alloc(order: u8) -> Option<u64> {
    zeroed(alloc_raw(order)?, order)
}

/// A frame of zeros, out of what is promised to who asks.
pub fn alloc_promised(order: u8) -> Option<u64> {
    let mut pool = POOL.lock();
    let at = pool.frames.as_mut()?.alloc(order)?;
    pool.promised = pool.promised.saturating_sub(4096 << order);
    drop(pool);
    zeroed(at, order)
}

/// A frame of zeros for the image's own page tables, whose room was promised with what they map.
fn alloc_table() -> Option<u64> {
    let at = POOL.lock().frames.as_mut()?.alloc(0)?;
    zeroed(at, 0)
}

fn zeroed(at: u64, order: u8) -> Option<u64> {
    // SAFETY: the frame is ours, as large as that, and mapped.
    unsafe { zero(window(at), 4096 << order) };
    Some(at)
}

/// Promises so many bytes, if there are as many.
pub fn promise(bytes: u64) -> bool {
    let mut pool = POOL.lock();
    let free = pool.frames.as_ref().map_or(0, Frames::free_bytes);
    let promised = pool.promised.checked_add(bytes).filter(|sum| *sum <= free);
    pool.promised = promised.unwrap_or(pool.promised);
    promised.is_some()
}

/// Takes back what was promised and not taken.
pub fn take_back(bytes: u64) {
    let mut pool = POOL.lock();
    pool.promised = pool.promised.saturating_sub(bytes);
}

/// Gives a frame back.
///
/// # Safety
/// It came from here with this order, or is a frame within one that did, and nobody uses it any
/// more.
pub unsafe fn release(at: u64, order: u8) {
    if let Some(frames) = POOL.lock().frames.as_mut() {
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
