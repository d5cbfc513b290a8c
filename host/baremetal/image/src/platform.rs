//! What the image lends the native backend.

use crate::cpu::{local, register};
use crate::memory;
use crate::{thread, time};
use backend_native::{Frame, GuestRam, HostPhys, Platform};
use core::arch::asm;
use core::ops::Range;
use hypervisor::memory::{Gpa, GuestMemory, HostBlock};

/// This machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine;

/// A guest's RAM, for now of frames that are there from the start.
pub struct Ram {
    memory: GuestMemory,
    pieces: alloc::vec::Vec<(u64, HostPhys)>,
}

const ORDER: u8 = 9;
const SIZE: u64 = 4096 << ORDER;

// SAFETY: each piece is a frame of its own, zeroed, at the address that `memory` shows.
unsafe impl GuestRam for Ram {
    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }

    fn frame(&self, at: Gpa) -> Option<Frame> {
        let piece = self.pieces.iter().find(|(start, _)| (*start..start + SIZE).contains(&at.0))?;
        Some(Frame { at: piece.1, order: ORDER })
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        for (_, frame) in &self.pieces {
            // SAFETY: from `alloc` below; the guest is gone.
            unsafe { memory::release(frame.0, ORDER) };
        }
    }
}

// SAFETY: each call does what it promises, as written beside it.
unsafe impl Platform for Machine {
    type Ram = Ram;

    fn guest_ram(&self, ranges: &[Range<u64>]) -> Option<Ram> {
        let mut ram = Ram { memory: GuestMemory::new(), pieces: alloc::vec::Vec::new() };
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let frame = memory::alloc(ORDER)?;
                ram.pieces.push((at, HostPhys(frame)));
                let size = SIZE.min(range.end - at);
                // SAFETY: the frame is mapped until the last of it is gone.
                let block = unsafe { HostBlock::new(Gpa(at), size, memory::window(frame)) };
                ram.memory.add(block).ok()?;
                at += SIZE;
            }
        }
        Some(ram)
    }

    fn alloc(&self, order: u8) -> Option<HostPhys> {
        memory::alloc(order).map(HostPhys)
    }

    unsafe fn free(&self, at: HostPhys, order: u8) {
        // SAFETY: as the caller promises.
        unsafe { memory::release(at.0, order) };
    }

    fn virt(&self, at: HostPhys) -> *mut u8 {
        memory::window(at.0)
    }

    fn cpu(&self) -> u32 {
        local::this().number
    }

    fn cpus(&self) -> u32 {
        local::count()
    }

    fn cpu_slot(&self) -> *mut usize {
        local::this().slot.get()
    }

    unsafe fn fpu_swap(&self, from: *mut u8, to: *const u8) {
        let (low, high) = (u32::MAX, u32::MAX);
        // SAFETY: as the caller promises; XCR0 limits what is saved to what the areas hold.
        unsafe {
            if register::guest_components() == 0 {
                asm!("fxsave64 [{}]", "fxrstor64 [{}]", in(reg) from, in(reg) to);
            } else {
                asm!("xsave64 [{}]", "xrstor64 [{}]", in(reg) from, in(reg) to,
                    in("eax") low, in("edx") high);
            }
        }
    }

    fn xcr0(&self) -> u64 {
        register::guest_components()
    }

    fn kick(&self, cpu: u32) {
        thread::kick(cpu);
    }

    fn relax(&self) {
        core::hint::spin_loop();
    }

    fn now_ns(&self) -> u64 {
        time::now()
    }

    fn cycle_frequency(&self) -> u64 {
        time::frequency()
    }

    fn arm_timer(&self, at_ns: Option<u64>) -> bool {
        thread::set_wish(at_ns);
        true
    }
}
