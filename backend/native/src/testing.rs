//! A platform of the test program's own memory: frames are host addresses.

#![allow(unsafe_code)]

use crate::{Frame, GuestRam, HostPhys, Platform};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use hypervisor::memory::{Gpa, GuestMemory, HostBlock};
use std::alloc::{Layout, alloc_zeroed, dealloc};

/// A machine with two CPUs, of which one at a time is used.
#[derive(Default)]
pub(crate) struct Board {
    frames: Arc<AtomicUsize>,
    failing: AtomicBool,
    cpu: AtomicU32,
    wishes: AtomicUsize,
    slots: [Slot; 2],
}

#[derive(Default)]
struct Slot(UnsafeCell<usize>);

// SAFETY: each test has a board of its own and one thread.
unsafe impl Sync for Slot {}

/// A new one, for as long as the tests run.
pub(crate) fn board() -> &'static Board {
    Box::leak(Box::default())
}

impl Board {
    /// Frames in use.
    pub fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed)
    }

    /// How often an interrupt at some time was asked for.
    pub fn wishes(&self) -> usize {
        self.wishes.load(Ordering::Relaxed)
    }

    /// Goes on on this CPU.
    pub fn go_to(&self, cpu: u32) {
        self.cpu.store(cpu, Ordering::Relaxed);
    }

    /// Whether there is no memory any more but what was promised.
    pub fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }
}

fn layout(order: u8) -> Layout {
    Layout::from_size_align(4096 << order, 4096).unwrap()
}

fn zeroed(frames: &AtomicUsize, order: u8) -> HostPhys {
    frames.fetch_add(1, Ordering::Relaxed);
    // SAFETY: not of size 0.
    HostPhys(unsafe { alloc_zeroed(layout(order)) }.expose_provenance() as u64)
}

/// RAM in one piece for each range of up to 16 MiB; larger ones are only promised.
pub(crate) struct Ram {
    /// The board's frames in use.
    frames: Arc<AtomicUsize>,
    /// Tables that were promised and not taken.
    tables: AtomicU64,
    memory: GuestMemory,
}

const SMALL: u64 = 16 << 20;

// SAFETY: the pieces are this guest's until it is dropped.
unsafe impl GuestRam for Ram {
    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }

    fn frame(&self, at: Gpa) -> Option<Frame> {
        let block = self.memory.blocks().iter().find(|block| block.range().contains(&at.0))?;
        let offset = (at.0 & !4095) - block.range().start;
        Some(Frame { at: HostPhys(block.host().addr() as u64 + offset), order: 0 })
    }

    fn table(&self) -> Option<HostPhys> {
        let left = self.tables.load(Ordering::Relaxed).checked_sub(1)?;
        self.tables.store(left, Ordering::Relaxed);
        Some(zeroed(&self.frames, 0))
    }
}

/// Page-aligned memory of the test program.
struct Piece(*mut u8, Layout);

// SAFETY: raw memory, which only `GuestMemory` touches.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: allocated below with this layout.
        unsafe { dealloc(self.0, self.1) };
    }
}

// SAFETY: frames are zeroed memory of the test program.
unsafe impl Platform for Board {
    type Ram = Ram;

    fn guest_ram(&self, ranges: &[Range<u64>], tables: u64) -> Option<Ram> {
        let mut memory = GuestMemory::new();
        for range in ranges.iter().filter(|range| range.end - range.start <= SMALL) {
            let size = usize::try_from(range.end - range.start).ok()?;
            let layout = Layout::from_size_align(size, 4096).ok()?;
            // SAFETY: not of size 0.
            let host = unsafe { alloc_zeroed(layout) };
            let piece = Arc::new(Piece(host, layout));
            let gpa = Gpa(range.start);
            // SAFETY: allocated until the piece is dropped.
            let block = unsafe { HostBlock::new(gpa, size as u64, host, piece) };
            memory.add(block).ok()?;
        }
        let tables = AtomicU64::new(tables);
        Some(Ram { frames: self.frames.clone(), tables, memory })
    }

    fn alloc(&self, order: u8) -> Option<HostPhys> {
        if self.failing.load(Ordering::Relaxed) {
            return None;
        }
        Some(zeroed(&self.frames, order))
    }

    fn cpu_frame(&self) -> Option<HostPhys> {
        Some(zeroed(&self.frames, 0))
    }

    unsafe fn free(&self, at: HostPhys, order: u8) {
        self.frames.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: from `alloc`, as the caller promises.
        unsafe { dealloc(self.virt(at), layout(order)) };
    }

    fn virt(&self, at: HostPhys) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(usize::try_from(at.0).unwrap())
    }

    fn cpu(&self) -> u32 {
        self.cpu.load(Ordering::Relaxed)
    }

    fn cpus(&self) -> u32 {
        2
    }

    fn cpu_slot(&self) -> *mut usize {
        self.slots[usize::try_from(self.cpu()).unwrap()].0.get()
    }

    unsafe fn fpu_swap(&self, _from: *mut u8, _to: *const u8) {}

    fn xcr0(&self) -> u64 {
        7
    }

    fn kick(&self, _cpu: u32) {}

    fn relax(&self) {}

    fn now_ns(&self) -> u64 {
        0
    }

    fn cycle_frequency(&self) -> u64 {
        1_000_000_000
    }

    fn arm_timer(&self, at_ns: Option<u64>) -> bool {
        self.wishes.fetch_add(usize::from(at_ns.is_some()), Ordering::Relaxed);
        true
    }
}
