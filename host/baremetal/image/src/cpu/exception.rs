//! Exceptions: each stub saves the registers and calls [`exception`].

use super::local;
use super::register::{cr2, cr3};
use crate::end;
use crate::log::{Level, line};
use crate::memory::{guest, stack};
use core::arch::naked_asm;

/// What a stub saves, in the order of the stack.
#[repr(C)]
pub struct Registers {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Saves the registers and calls [`exception`] with their address.
#[unsafe(naked)]
extern "C" fn common() {
    naked_asm!(
        "push rax; push rbx; push rcx; push rdx; push rsi; push rdi; push rbp; push r8",
        "push r9; push r10; push r11; push r12; push r13; push r14; push r15",
        "cld",
        "mov rdi, rsp",
        "mov rbx, rsp",
        "and rsp, -16",
        "call {exception}",
        "mov rsp, rbx",
        "pop r15; pop r14; pop r13; pop r12; pop r11; pop r10; pop r9; pop r8",
        "pop rbp; pop rdi; pop rsi; pop rdx; pop rcx; pop rbx; pop rax",
        "add rsp, 16",
        "iretq",
        exception = sym exception,
    )
}

/// The stub of an exception without an error code.
#[unsafe(naked)]
extern "C" fn plain<const VECTOR: u8>() {
    naked_asm!("push 0", "push {vector}", "jmp {common}", vector = const VECTOR, common = sym common)
}

/// The stub of an exception with an error code.
#[unsafe(naked)]
extern "C" fn coded<const VECTOR: u8>() {
    naked_asm!("push {vector}", "jmp {common}", vector = const VECTOR, common = sym common)
}

/// The stubs, by vector.
#[rustfmt::skip]
pub static STUBS: [extern "C" fn(); 32] = [
    plain::<0>, plain::<1>, plain::<2>, plain::<3>, plain::<4>, plain::<5>, plain::<6>, plain::<7>,
    coded::<8>, plain::<9>, coded::<10>, coded::<11>, coded::<12>, coded::<13>, coded::<14>, plain::<15>,
    plain::<16>, coded::<17>, plain::<18>, plain::<19>, plain::<20>, coded::<21>, plain::<22>, plain::<23>,
    plain::<24>, plain::<25>, plain::<26>, plain::<27>, plain::<28>, coded::<29>, coded::<30>, plain::<31>,
];

/// A page fault's error code: there was something, but not with that right.
const PRESENT: u64 = 1;

const NAMES: [&str; 22] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound",
    "invalid opcode",
    "no coprocessor",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD error",
    "virtualization",
    "control protection",
];

/// An exception in this program: RAM of a guest that was not there yet, or a mistake, so the end.
extern "C" fn exception(r: &mut Registers) {
    if r.vector == 14 && r.error & PRESENT == 0 && guest::fault(cr2()) {
        return;
    }
    if r.vector == 2 && end::has_failed() {
        end::halt();
    }
    end::begin_failure();
    let name = usize::try_from(r.vector).ok().and_then(|v| NAMES.get(v)).unwrap_or(&"exception");
    let say = |text: core::fmt::Arguments<'_>| line(Level::Error, text);
    say(format_args!(
        "{name} (vector {}, code {:#x}) on CPU {} at {:#x}",
        r.vector,
        r.error,
        local::this().number,
        r.rip
    ));
    say(format_args!(
        "rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}",
        r.rax, r.rbx, r.rcx, r.rdx
    ));
    say(format_args!(
        "rsi {:016x} rdi {:016x} rbp {:016x} rsp {:016x}",
        r.rsi, r.rdi, r.rbp, r.rsp
    ));
    say(format_args!("r8  {:016x} r9  {:016x} r10 {:016x} r11 {:016x}", r.r8, r.r9, r.r10, r.r11));
    say(format_args!(
        "r12 {:016x} r13 {:016x} r14 {:016x} r15 {:016x}",
        r.r12, r.r13, r.r14, r.r15
    ));
    say(format_args!(
        "cs {:x} ss {:x} rflags {:x} cr2 {:016x} cr3 {:x}",
        r.cs,
        r.ss,
        r.rflags,
        cr2(),
        cr3()
    ));
    if r.vector == 14 && stack::is_guard(cr2()) {
        say(format_args!("a stack has overflowed"));
    }
    end::with_trace(r.rip, r.rbp)
}
