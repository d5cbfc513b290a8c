//! Memory: the physical window, frames, the heap, the image's own mapping, stacks.

pub mod guest;
mod heap;
pub mod space;
pub mod stack;

use crate::trace;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use host_baremetal::boot::{BootInfo, RegionKind};
use host_baremetal::frames::{Frames, MAX_ORDER, PAGE};
use host_baremetal::pool::Pool;
use hypervisor::sync::Mutex;

/// Where physical address 0 appears.
const WINDOW: usize = 0xffff_8000_0000_0000;
/// What `boot.s` maps there.
pub const BOOT_MAPPED: u64 = 4 << 30;
/// Below is the firmware's and the boot loader's.
const LOW: u64 = 1 << 20;
/// Where the image is linked, above where it lies.
const IMAGE_OFFSET: usize = 0xffff_ffff_8000_0000;

/// A leaf lock.
static POOL: Mutex<Option<Pool>> = Mutex::new(None);
/// Bytes of RAM that nobody else had when this program began, itself included.
static GIVEN: AtomicU64 = AtomicU64::new(0);

/// Does something with the frames.
fn with<T>(work: impl FnOnce(&mut Pool) -> Option<T>) -> Option<T> {
    POOL.lock().as_mut().and_then(work)
}

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
    *POOL.lock() = Some(Pool::new(frames));
    GIVEN.store(given, Ordering::Relaxed);
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
    let _ = with(|pool| {
        // SAFETY: RAM that is free, and mapped at the window.
        each_free(boot, taken, limits, &mut |free| unsafe { pool.frames().add(free) });
        Some(())
    });
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

/// Free bytes: nobody has taken them. They may be promised.
pub fn free() -> u64 {
    with(|pool| Some(pool.untaken())).unwrap_or(0)
}

/// Bytes that guests will take when they touch their memory.
pub fn promised() -> u64 {
    with(|pool| Some(pool.promised())).unwrap_or(0)
}

/// Bytes in use: the image, its tables, its heap, and what guests have touched.
pub fn in_use() -> u64 {
    GIVEN.load(Ordering::Relaxed).saturating_sub(free())
}

/// Whether there are so many bytes to make something new of, besides all that is promised, kept and
/// set aside ([`host_baremetal::pool`]).
pub fn has_room(bytes: u64) -> bool {
    with(|pool| Some(pool.has_room(bytes))).unwrap_or(false)
}

/// A frame with garbage in it, for something new.
pub fn alloc_raw(order: u8) -> Option<u64> {
    with(|pool| pool.alloc(order))
}

/// A frame of zeros, for something new.
pub fn alloc(order: u8) -> Option<u64> {
    zeroed(alloc_raw(order)?, order)
}

fn zeroed(at: u64, order: u8) -> Option<u64> {
    // SAFETY: the frame is ours, as large as that, and mapped.
    unsafe { zero(window(at), 4096 << order) };
    Some(at)
}

/// A frame for the heap, and its order: the one that it likes, or at least the one that it needs.
fn alloc_for_heap(liked: u8, needed: u8) -> Option<(u64, u8)> {
    with(|pool| pool.alloc_for_heap(liked, needed))
}

/// Bytes that nobody but the holder takes.
pub struct Promise {
    /// Those that were not taken yet.
    left: AtomicU64,
}

impl Promise {
    /// A promise of so many bytes, if there are as many. It costs nothing but the count.
    pub fn new(bytes: u64) -> Option<Self> {
        let promised = with(|pool| Some(pool.promise(bytes))).unwrap_or(false);
        promised.then(|| Self { left: AtomicU64::new(bytes) })
    }

    /// A frame of zeros. It does not fail for order 0 while there is enough left.
    pub fn take(&self, order: u8) -> Option<u64> {
        let size = PAGE << order;
        let less = |left: u64| left.checked_sub(size);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        let at = with(|pool| pool.alloc_promised(order));
        if at.is_none() {
            self.left.fetch_add(size, Ordering::Relaxed);
        }
        zeroed(at?, order)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let left = self.left.load(Ordering::Relaxed);
        let _ = with(|pool| {
            pool.take_back(left);
            Some(())
        });
    }
}

/// Bytes that are kept for the heap while this lives.
pub struct Kept(u64);

impl Kept {
    /// Keeps so many bytes for the heap, if there are as many.
    pub fn new(bytes: u64) -> Option<Self> {
        let kept = with(|pool| Some(pool.keep(bytes))).unwrap_or(false);
        kept.then_some(Self(bytes))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = with(|pool| {
            pool.keep_no_more(self.0);
            Some(())
        });
    }
}

/// Gives a frame back.
///
/// # Safety
/// It came from here with this order, or is a frame within one that did, and nobody uses it any
/// more.
pub unsafe fn release(at: u64, order: u8) {
    let _ = with(|pool| {
        // SAFETY: as the caller promises.
        unsafe { pool.free(at, order) };
        Some(())
    });
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
