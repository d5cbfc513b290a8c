//! The image's own address space: no page of it can be written and executed.
//!
//! | from | what |
//! |---|---|
//! | `0xffff_8000_0000_0000` | the window: RAM at its physical address, without the image |
//! | `0xffff_a000_0000_0000` | stacks, with pages in between that are not mapped |
//! | `0xffff_b000_0000_0000` | device registers and tables of the firmware |
//! | `0xffff_c000_0000_0000` | RAM of guests |
//! | `0xffff_ffff_8000_0000` | the image, in pages of 4 KiB, each section with its rights |

#![allow(clippy::cast_possible_truncation)]

use super::{IMAGE_OFFSET, LOW, Promise, WINDOW, alloc as alloc_frame, alloc_raw, release, window};
use crate::cpu::local::Local;
use crate::cpu::register::{cr3, flush_page, set_cr3};
use crate::trace;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use host_baremetal::boot::BootInfo;
use host_baremetal::frames::PAGE;
use host_baremetal::paging::{NoMemory, PageTables, Rights, Size, Tables};
use hypervisor::sync::Mutex;

/// The window ends where stacks begin.
pub const WINDOW_SIZE: u64 = 1 << 45;
/// Where device registers go.
const DEVICES: u64 = 0xffff_b000_0000_0000;

unsafe extern "C" {
    static text_start: u8;
    static rodata_start: u8;
    static data_start: u8;
    static boot_stack_guard: u8;
    static data_end: u8;
}

/// Page tables in frames.
struct FromFrames {
    /// Whose promise they are taken from, while a guest's window is mapped.
    promise: Option<Arc<Promise>>,
}

// SAFETY: frames are zeroed, ours alone, and reached through the window.
unsafe impl Tables for FromFrames {
    fn alloc(&mut self) -> Option<u64> {
        match &self.promise {
            Some(promise) => promise.take(0),
            None => alloc_frame(0),
        }
    }

    fn release(&mut self, table: u64) {
        // SAFETY: from `alloc`; the page tables no longer use it.
        unsafe { release(table, 0) };
    }

    fn entries(&self, table: u64) -> *mut u64 {
        window(table).cast()
    }
}

struct Space {
    tables: PageTables<FromFrames>,
    /// Where the next device goes.
    device: u64,
}

/// Taken before the frames' lock.
static SPACE: Mutex<Option<Space>> = Mutex::new(None);

/// Maps the image and RAM as they stay, and switches to that.
pub fn init(boot: &BootInfo, image: &Range<u64>) {
    let Ok(space) = build(boot, image) else { panic!("no RAM for page tables") };
    let root = space.tables.root();
    *SPACE.lock() = Some(space);
    // SAFETY: all that is in use is mapped where it was: image, boot stack, and frames.
    unsafe { set_cr3(root) };
}

fn build(boot: &BootInfo, image: &Range<u64>) -> Result<Space, NoMemory> {
    let mut tables = PageTables::new(FromFrames { promise: None })?;
    let mut result = Ok(());
    for range in boot.to_map(LOW) {
        BootInfo::without(range, core::slice::from_ref(image), &mut |part| {
            let at = part.start + WINDOW as u64..part.end + WINDOW as u64;
            result = result.and(tables.map(at, part.start, Rights::DATA, largest()));
        });
    }
    result?;
    for (range, rights) in sections() {
        let to = range.start - IMAGE_OFFSET as u64;
        tables.map(range, to, rights, Size::Small)?;
    }
    Ok(Space { tables, device: DEVICES })
}

/// The largest page of this processor.
fn largest() -> Size {
    let huge = crate::cpu::register::cpuid(0x8000_0001, 0)[3] & (1 << 26) != 0;
    if huge { Size::Huge } else { Size::Large }
}

/// The image's sections, as the linker script has them.
fn sections() -> [(Range<u64>, Rights); 5] {
    let range = |from: *const u8, to: *const u8| from.addr() as u64..to.addr() as u64;
    let code = range(&raw const text_start, &raw const rodata_start);
    let constants = range(&raw const rodata_start, &raw const data_start);
    let before = range(&raw const data_start, &raw const boot_stack_guard);
    let after = range((&raw const boot_stack_guard).wrapping_add(4096), &raw const data_end);
    let names = trace::table();
    let names = names.start as u64 / PAGE * PAGE..(names.end as u64).next_multiple_of(PAGE);
    [
        (code, Rights::CODE),
        (constants, Rights::CONSTANT),
        (before, Rights::DATA),
        (after, Rights::DATA),
        (names, Rights::CONSTANT),
    ]
}

/// The address space, locked, for who does several things to it.
pub struct Access<'a>(&'a mut Space);

/// Locks the address space.
pub fn with(work: impl FnOnce(&mut Access<'_>)) {
    if let Some(space) = SPACE.lock().as_mut() {
        work(&mut Access(space));
    }
}

impl Access<'_> {
    /// The frame that an address is in, and its order.
    pub fn frame(&self, at: u64) -> Option<(u64, u8)> {
        let (to, rights) = self.0.tables.translate(at)?;
        let large = rights.contains(Rights::LARGE);
        let (size, order) = if large { (Size::Large, 9) } else { (Size::Small, 0) };
        Some((to & !(size.bytes() - 1), order))
    }

    /// Whether nothing is mapped in the block of this order at an address.
    pub fn is_empty(&self, at: u64, order: u8) -> bool {
        self.0.tables.is_empty(at..at + (PAGE << order))
    }

    /// Maps data; tables for it are taken from a promise. `None` where that is not enough.
    pub fn map(&mut self, at: u64, to: u64, size: u64, promise: &Arc<Promise>) -> Option<()> {
        let tables = &mut self.0.tables;
        tables.source().promise = Some(promise.clone());
        let mapped = tables.map(at..at + size, to, Rights::DATA, Size::Large);
        tables.source().promise = None;
        mapped.ok()
    }
}

/// Counts the times that every CPU has to forget its mappings.
static FLUSHES: AtomicU64 = AtomicU64::new(0);

/// Makes every CPU forget its mappings: this one now, the others before their next thread.
pub fn flush_everywhere() {
    FLUSHES.fetch_add(1, Ordering::Relaxed);
    flush(crate::cpu::local::this());
}

/// Forgets this CPU's mappings, if that was asked for since it did so last.
pub fn flush(local: &Local) {
    let asked = FLUSHES.load(Ordering::Relaxed);
    if local.flushes.replace(asked) != asked {
        // SAFETY: the same tables again.
        unsafe { set_cr3(cr3()) };
    }
}

/// Removes a guest's window and gives its frames back.
pub fn unmap_window(range: Range<u64>) {
    with(|space| {
        space.0.tables.unmap(range, &mut |frame, size| {
            let order = if size == Size::Small { 0 } else { 9 };
            // SAFETY: only frames of guests are mapped in a window; this guest is gone.
            unsafe { release(frame, order) };
        });
    });
}

/// Maps memory for the image itself, at an address of its own areas.
pub fn map(at: u64, to: u64, length: u64, rights: Rights) -> Option<()> {
    let mut space = SPACE.lock();
    space.as_mut()?.tables.map(at..at + length, to, rights, Size::Small).ok()
}

/// Maps registers of a device, or tables of the firmware, for good.
pub fn map_device(at: u64, length: u64, rights: Rights) -> Option<*mut u8> {
    let (start, end) = (at / PAGE * PAGE, at.checked_add(length)?.next_multiple_of(PAGE));
    let mut space = SPACE.lock();
    let space = space.as_mut()?;
    let place = space.device;
    let range = place..place + (end - start);
    space.device = range.end;
    space.tables.map(range, start, rights, Size::Small).ok()?;
    let address = (place + (at - start)) as usize;
    Some(core::ptr::with_exposed_provenance_mut(address))
}

/// The root of the page tables, below 4 GiB: `boot.s` maps no more when it is made.
pub fn root() -> u32 {
    let root = SPACE.lock().as_ref().map_or(0, |space| space.tables.root());
    u32::try_from(root).unwrap_or(0)
}

/// The physical address behind one of the image's own.
pub fn physical(at: u64) -> Option<u64> {
    if let Some(inside) = at.checked_sub(WINDOW as u64).filter(|inside| *inside < WINDOW_SIZE) {
        return Some(inside);
    }
    let space = SPACE.lock();
    space.as_ref()?.tables.translate(at).map(|(to, _)| to)
}

/// Whether an address can be read.
pub fn is_mapped(at: u64) -> bool {
    // Also called when all is lost, maybe by who holds the lock: then nothing is known.
    let Some(space) = SPACE.try_lock() else { return false };
    space.as_ref().is_some_and(|space| space.tables.translate(at).is_some())
}

/// Takes a page of the identity map, where a CPU starts, in or out: code only.
pub fn map_low(page: u64, mapped: bool) -> Option<()> {
    let mut space = SPACE.lock();
    let tables = &mut space.as_mut()?.tables;
    if mapped {
        tables.map(page..page + PAGE, page, Rights::CODE, Size::Small).ok()?;
    } else {
        tables.unmap(page..page + PAGE, &mut |_, _| ());
        flush_page(page as usize);
    }
    Some(())
}

/// Frames of stacks need no zeros.
pub fn stack_frame(order: u8) -> Option<u64> {
    alloc_raw(order)
}
