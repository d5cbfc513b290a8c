//! What the image lends the native backend.

use crate::cpu::{local, register};
use crate::memory::{self, Promise, guest::Ram};
use crate::{thread, time};
use backend_native::{CPU_FRAMES, HostPhys, Platform};
use core::arch::asm;
use core::ops::Range;
use host_baremetal::frames::PAGE;
use hypervisor::sync::Mutex;

/// This machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine;

/// What the backend will take on each CPU.
static CPUS: Mutex<Option<Promise>> = Mutex::new(None);

/// Promises the backend what it will take on each CPU. To be called once all are counted.
pub fn promise_cpus() {
    *CPUS.lock() = Promise::new(u64::from(local::count()) * CPU_FRAMES * PAGE);
}

// SAFETY: each call does what it promises, as written beside it.
unsafe impl Platform for Machine {
    type Ram = Ram;

    fn guest_ram(&self, ranges: &[Range<u64>], tables: u64) -> Option<Ram> {
        Ram::new(ranges, tables)
    }

    fn alloc(&self, order: u8) -> Option<HostPhys> {
        memory::alloc(order).map(HostPhys)
    }

    fn cpu_frame(&self) -> Option<HostPhys> {
        let promised = CPUS.lock().as_ref().and_then(|promise| promise.take(0));
        promised.or_else(|| memory::alloc(0)).map(HostPhys)
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
        let of_nobody = 0u32;
        // SAFETY: as the caller promises; XCR0 limits what is saved to what the areas hold.
        unsafe {
            if register::guest_components() == 0 {
                asm!("fxsave64 [{}]", in(reg) from);
            } else {
                asm!("xsave64 [{}]", in(reg) from, in("eax") low, in("edx") high);
            }
            // AMD's processors leave the x87 instruction and data pointers alone where no
            // exception is pending (APM vol. 5, FXRSTOR): the next guest would read where this one
            // computed. A load of our own puts other addresses there.
            asm!("fnclex", "emms", "fild dword ptr [{}]", in(reg) &raw const of_nobody);
            if register::guest_components() == 0 {
                asm!("fxrstor64 [{}]", in(reg) to);
            } else {
                asm!("xrstor64 [{}]", in(reg) to, in("eax") low, in("edx") high);
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
