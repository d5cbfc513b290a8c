//! From the tender's first instruction to `main`.
//!
//! Solo5's hvt ABI: long mode, flat segments, `rdi` holds the address of the boot information, the
//! stack is at the end of memory. We move to the image's own stack, which ends at read-only data.

#![allow(unsafe_code)]

use crate::raw::{self, BootInfo};
use core::arch::global_asm;

global_asm!(
    ".section .text._start, \"ax\"",
    ".global _start",
    "_start:",
    "xor ebp, ebp",
    "lea rsp, [rip + __stack_top]",
    "call {start}",
    "ud2",
    ".text",
    start = sym start,
);

unsafe extern "Rust" {
    /// What `main!` defines.
    safe fn __unikernel_main() -> i32;
}

/// Order: boot information, exception handlers (so that all that follows may fail loudly), clock,
/// heap, then the unikernel itself.
unsafe extern "C" fn start(info: *mut BootInfo) -> ! {
    // SAFETY: called once by `_start`, with what the tender passed.
    unsafe {
        raw::set_boot_info(info);
        crate::cpu::init();
    }
    crate::clock::init(raw::boot_info().cpu_cycle_freq);
    crate::heap::init();
    crate::exit(__unikernel_main())
}
