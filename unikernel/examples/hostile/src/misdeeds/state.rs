//! What a hypercall must leave alone: every register.

use super::misdeeds;
use crate::Outcome;
use core::arch::global_asm;
use unikernel::raw::{Walltime, number};

misdeeds! {
    "registers" => Harmless, || (0..ROUNDS).try_for_each(|_| registers());
    "fpu" => Harmless, || { sse()?; arithmetic() };
}

/// Enough that a rewritten hypercall site is among them.
const ROUNDS: u32 = 1000;
const PORT: u32 = unikernel::raw::HYPERCALL_PIO_BASE + number::WALLTIME;

// hostile_registers(argument, out): fills all registers but rax, rdx (the hypercall's) and rsp with
// patterns, sets CF, makes the hypercall, stores what is there: rax rcx rdx rbx rbp rsi rdi r8-r15
// rsp flags, and rsp as it was.
global_asm!(
    "hostile_registers:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rsi",
    "mov eax, edi",
    "mov [rsi + 136], rsp",
    "mov rcx, 0x1111111122222201",
    "mov rbx, 0x1111111122222203",
    "mov rbp, 0x1111111122222204",
    "mov rsi, 0x1111111122222205",
    "mov rdi, 0x1111111122222206",
    "mov r8, 0x1111111122222207",
    "mov r9, 0x1111111122222208",
    "mov r10, 0x1111111122222209",
    "mov r11, 0x111111112222220a",
    "mov r12, 0x111111112222220b",
    "mov r13, 0x111111112222220c",
    "mov r14, 0x111111112222220d",
    "mov r15, 0x111111112222220e",
    "stc",
    "mov edx, {port}",
    "out dx, eax",
    "push rsi",
    "pushfq",
    "mov rsi, [rsp + 16]",
    "mov [rsi], rax",
    "mov [rsi + 8], rcx",
    "mov [rsi + 16], rdx",
    "mov [rsi + 24], rbx",
    "mov [rsi + 32], rbp",
    "pop rax",
    "mov [rsi + 128], rax",
    "pop rax",
    "mov [rsi + 40], rax",
    "mov [rsi + 48], rdi",
    "mov [rsi + 56], r8",
    "mov [rsi + 64], r9",
    "mov [rsi + 72], r10",
    "mov [rsi + 80], r11",
    "mov [rsi + 88], r12",
    "mov [rsi + 96], r13",
    "mov [rsi + 104], r14",
    "mov [rsi + 112], r15",
    "mov [rsi + 120], rsp",
    "pop rsi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    // hostile_sse(argument, patterns, rounds): loads xmm0-15 and MXCSR from patterns, makes that
    // many hypercalls, stores all of them back.
    "hostile_sse:",
    "mov ecx, edx",
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + 16]",
    "movups xmm2, [rsi + 32]",
    "movups xmm3, [rsi + 48]",
    "movups xmm4, [rsi + 64]",
    "movups xmm5, [rsi + 80]",
    "movups xmm6, [rsi + 96]",
    "movups xmm7, [rsi + 112]",
    "movups xmm8, [rsi + 128]",
    "movups xmm9, [rsi + 144]",
    "movups xmm10, [rsi + 160]",
    "movups xmm11, [rsi + 176]",
    "movups xmm12, [rsi + 192]",
    "movups xmm13, [rsi + 208]",
    "movups xmm14, [rsi + 224]",
    "movups xmm15, [rsi + 240]",
    "ldmxcsr [rsi + 256]",
    "fld1",
    "2:",
    "mov eax, edi",
    "mov edx, {port}",
    "out dx, eax",
    "dec ecx",
    "jnz 2b",
    "fstp qword ptr [rsi + 264]",
    "stmxcsr [rsi + 256]",
    "movups [rsi], xmm0",
    "movups [rsi + 16], xmm1",
    "movups [rsi + 32], xmm2",
    "movups [rsi + 48], xmm3",
    "movups [rsi + 64], xmm4",
    "movups [rsi + 80], xmm5",
    "movups [rsi + 96], xmm6",
    "movups [rsi + 112], xmm7",
    "movups [rsi + 128], xmm8",
    "movups [rsi + 144], xmm9",
    "movups [rsi + 160], xmm10",
    "movups [rsi + 176], xmm11",
    "movups [rsi + 192], xmm12",
    "movups [rsi + 208], xmm13",
    "movups [rsi + 224], xmm14",
    "movups [rsi + 240], xmm15",
    "mov dword ptr [rsp - 4], 0x1f80",
    "ldmxcsr [rsp - 4]",
    "ret",
    port = const PORT,
);

unsafe extern "C" {
    fn hostile_registers(argument: *mut Walltime, out: *mut Registers);
    fn hostile_sse(argument: *mut Walltime, patterns: *mut Sse, rounds: u32);
}

#[derive(Default)]
#[repr(C)]
struct Registers {
    rax: u64,
    rcx: u64,
    rdx: u64,
    /// rbx, rbp, rsi, rdi, r8 to r15.
    rest: [u64; 12],
    rsp: u64,
    flags: u64,
    rsp_before: u64,
}

#[derive(Clone, PartialEq)]
#[repr(C)]
struct Sse {
    xmm: [u128; 16],
    mxcsr: u32,
    one: f64,
}

const PATTERN: u64 = 0x1111_1111_2222_2200;
const CARRY: u64 = 1;
const DIRECTION: u64 = 1 << 10;

fn registers() -> Outcome {
    let mut time = Walltime::default();
    let mut out = Registers::default();
    // SAFETY: the function keeps C's rules; both arguments are ours.
    unsafe { hostile_registers(&raw mut time, &raw mut out) };
    let patterns_kept = out.rest.iter().zip(3..).all(|(&value, n)| value == PATTERN + n);
    if out.rcx != PATTERN + 1 || !patterns_kept {
        return Err("a hypercall changed a general register");
    }
    if out.rax != (&raw const time).addr() as u64 || out.rdx != u64::from(PORT) {
        return Err("a hypercall changed rax or rdx");
    }
    if out.rsp != out.rsp_before {
        return Err("a hypercall changed rsp");
    }
    if out.flags & CARRY == 0 || out.flags & DIRECTION != 0 {
        return Err("a hypercall changed the flags");
    }
    if time.nsecs == 0 { Err("the hypercall did nothing") } else { Ok(()) }
}

fn sse() -> Outcome {
    let mut time = Walltime::default();
    // MXCSR: all exceptions masked, round toward zero.
    let xmm = core::array::from_fn(|i| u128::MAX / 255 * (i as u128 + 1));
    let wanted = Sse { xmm, mxcsr: 0x7f80, one: 1.0 };
    let mut found = Sse { one: 0.0, ..wanted.clone() };
    // SAFETY: the function keeps C's rules; both arguments are ours.
    unsafe { hostile_sse(&raw mut time, &raw mut found, ROUNDS) };
    if found == wanted { Ok(()) } else { Err("a hypercall changed an SSE or x87 register") }
}

/// Sums of reciprocals, with a hypercall at each step and without.
fn arithmetic() -> Outcome {
    let term = |i: u32| 1.0 / f64::from(i);
    let plain: f64 = (1..ROUNDS).map(term).sum();
    let with_calls: f64 = (1..ROUNDS)
        .map(|i| {
            unikernel::clock::wall();
            term(i)
        })
        .sum();
    if plain.to_bits() == with_calls.to_bits() { Ok(()) } else { Err("sums differ") }
}
