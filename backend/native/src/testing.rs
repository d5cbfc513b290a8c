//! A platform of the test program's own memory: frames are host addresses.

#![allow(unsafe_code)]

use crate::{Frame, GuestRam, HostPhys, Platform};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use hypervisor::memory::{Gpa, GuestMemory, HostBlock};
use std::alloc::{Layout, alloc_zeroed, dealloc};

/// A machine with two CPUs, of which one at a time is used.
#[derive(Default)]
pub(crate) struct Board {
    frames: AtomicUsize,
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

    /// Whether there is no memory any more.
    pub fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }
}

fn layout(order: u8) -> Layout {
    Layout::from_size_align(4096 << order, 4096).unwrap()
}

/// RAM in one piece for each range of up to 16 MiB; larger ones are only promised.
pub(crate) struct Ram {
    memory: GuestMemory,
    pieces: Vec<(Range<u64>, *mut u8)>,
}

// SAFETY: raw memory.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

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
        let (range, host) = self.pieces.iter().find(|(range, _)| range.contains(&at.0))?;
        let offset = (at.0 & !4095) - range.start;
        Some(Frame { at: HostPhys(host.addr() as u64 + offset), order: 0 })
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        for (range, host) in &self.pieces {
            let size = usize::try_from(range.end - range.start).unwrap();
            // SAFETY: allocated below with this layout.
            unsafe { dealloc(*host, Layout::from_size_align(size, 4096).unwrap()) };
        }
    }
}

// SAFETY: frames are zeroed memory of the test program.
unsafe impl Platform for Board {
    type Ram = Ram;

    fn guest_ram(&self, ranges: &[Range<u64>]) -> Option<Ram> {
        let mut ram = Ram { memory: GuestMemory::new(), pieces: Vec::new() };
        for range in ranges.iter().filter(|range| range.end - range.start <= SMALL) {
            let size = usize::try_from(range.end - range.start).ok()?;
            // SAFETY: not of size 0.
            let host = unsafe { alloc_zeroed(Layout::from_size_align(size, 4096).ok()?) };
            ram.pieces.push((range.clone(), host));
            // SAFETY: as long as the RAM.
            ram.memory.add(unsafe { HostBlock::new(Gpa(range.start), size as u64, host) }).ok()?;
        }
        Some(ram)
    }

    fn alloc(&self, order: u8) -> Option<HostPhys> {
        if self.failing.load(Ordering::Relaxed) {
            return None;
        }
        self.frames.fetch_add(1, Ordering::Relaxed);
        // SAFETY: not of size 0.
        Some(HostPhys(unsafe { alloc_zeroed(layout(order)) }.expose_provenance() as u64))
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
