//! Exceptions without end, over descriptor tables of our own.

use super::misdeeds;
use crate::Outcome;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

misdeeds! {
    "triple-fault" => Ended, triple_fault;
    "ud-loop" => RunsOn, || forever((&raw const hostile_return).addr(), 1);
    "exceptions-forever" => RunsOn, || forever((&raw const hostile_fault).addr(), 1);
    "exceptions-nested" => Ended, || forever((&raw const hostile_fault).addr(), 0);
    "idt-nowhere" => Ended, idt_nowhere;
    "no-handler" => Ended, no_handler;
}

global_asm!("hostile_return: iretq", "hostile_fault: ud2");

unsafe extern "C" {
    /// A handler that comes back to the instruction at fault.
    static hostile_return: u8;
    /// A handler that raises the next exception.
    static hostile_fault: u8;
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

#[repr(C, align(16))]
struct Idt(UnsafeCell<[[u64; 2]; 32]>);

// SAFETY: there is one thread.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 32]));

fn load(limit: u16, base: u64) {
    let pointer = Pointer { limit, base };
    // SAFETY: none for what follows: that is the misdeed.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer) };
}

fn ud2() -> Outcome {
    // SAFETY: raises #UD.
    unsafe { asm!("ud2") };
    Ok(())
}

/// No IDT at all.
fn triple_fault() -> Outcome {
    load(0, 0);
    ud2()
}

/// An IDT where there is no memory.
fn idt_nowhere() -> Outcome {
    load(0xfff, 0x7fff_ffff_f000);
    ud2()
}

/// Gates with a null selector: no handler can start, not even that of the double fault.
fn no_handler() -> Outcome {
    install(0, 0, 0);
    ud2()
}

/// A handler for all vectors that goes on at the next instruction, or the same.
pub(super) fn return_from_all() {
    install((&raw const hostile_return).addr() as u64, 8, 1);
}

/// One handler for all vectors, on stack `ist` of the bindings' TSS, or 0 for the current stack.
fn forever(handler: usize, ist: u64) -> Outcome {
    install(handler as u64, 8, ist);
    ud2()
}

fn install(handler: u64, selector: u64, ist: u64) {
    let low = handler & 0xffff | selector << 16 | ist << 32 | 0x8e << 40;
    let gate = [low | (handler >> 16 & 0xffff) << 48, handler >> 32];
    // SAFETY: the CPU does not know the table yet.
    unsafe { *IDT.0.get() = [gate; 32] };
    load(32 * 16 - 1, IDT.0.get().addr() as u64);
}
