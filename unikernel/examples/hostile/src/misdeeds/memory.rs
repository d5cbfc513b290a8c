//! Touching what is not there or not allowed.

use super::{end_of_memory, misdeeds, text};
use crate::{Outcome, address_argument};
use core::hint::black_box;
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use unikernel::{println, raw};

misdeeds! {
    "null-read" => Fault, || read(0);
    "null-write" => Fault, || write(0);
    "write-text" => Fault, || write(text());
    "write-rodata" => Fault, || write((&raw const RODATA).addr());
    "write-boot-info" => FaultOrHarmless, || write(0x1_0000);
    "read-beyond" => Fault, || read(end_of_memory() + (64 << 20));
    "write-beyond" => Fault, || write(end_of_memory() + (64 << 20));
    "read-noncanonical" => Fault, || read(1 << 63);
    // The ABI's page tables have no NX: a host that enforces it anyway may.
    "exec-data" => FaultOrHarmless, || call((&raw const DATA).addr());
    "exec-rodata" => FaultOrHarmless, || call((&raw const RODATA).addr());
    "exec-null" => Fault, || call(0);
    "stack-overflow" => Fault, || if recurse(black_box(1)) == 0 { Err("zero") } else { Ok(()) };
    // The most page tables for the fewest pages, then the rest.
    "touch-sparsely" => Harmless, || touch(2 << 20);
    "touch-all" => Harmless, || touch(2 << 20).and_then(|()| touch(4096));
    "read" => FaultOrHarmless, || read(address_argument()?);
    "write" => FaultOrHarmless, || write(address_argument()?);
    "jump" => FaultOrHarmless, || call(address_argument()?);
}

/// `ret`, sixteen times.
static RODATA: [u8; 16] = [0xc3; 16];
static mut DATA: [u8; 16] = [0xc3; 16];

fn read(address: usize) -> Outcome {
    let at = with_exposed_provenance::<u8>(address);
    // SAFETY: none: that is the misdeed.
    let value = unsafe { at.read_volatile() };
    println!("read {value:#x} at {address:#x}");
    Ok(())
}

fn write(address: usize) -> Outcome {
    let at = with_exposed_provenance_mut::<u8>(address);
    // SAFETY: none: that is the misdeed. The value stays what it was, as far as it can be read.
    unsafe {
        core::arch::asm!("lock or byte ptr [{}], 0", in(reg) at);
    }
    println!("wrote at {address:#x}");
    Ok(())
}

/// Writes to a page at every multiple of `step` in this guest's memory, as far as it is data.
fn touch(step: usize) -> Outcome {
    let info = raw::boot_info();
    let pages = (info.kernel_end.next_multiple_of(step)..info.mem_size).step_by(step);
    for at in pages.clone() {
        let at = with_exposed_provenance_mut::<u8>(at);
        // SAFETY: memory of this guest, whose value stays what it was.
        unsafe { core::arch::asm!("lock or byte ptr [{}], 0", in(reg) at) };
    }
    println!("touched {} pages", pages.count());
    Ok(())
}

fn call(address: usize) -> Outcome {
    // SAFETY: none: that is the misdeed; `ret` comes back.
    unsafe { core::arch::asm!("call {}", in(reg) address, clobber_abi("C")) };
    println!("called {address:#x}");
    Ok(())
}

#[allow(unconditional_recursion, reason = "that is the misdeed")]
fn recurse(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    recurse(black_box(depth + 1)) + room[usize::from(room[0] == 0)]
}
