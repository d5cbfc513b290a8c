//! What it costs a guest to leave and come back, by its own cycle counter. In an emulator that
//! counts instructions a tick is one instruction, of guest and host together.

use crate::cpu::{cpuid, enable_interrupts, outb, read, write, wrmsr};
use crate::pvh::Boot;
use crate::traps::INTERRUPTS;
use crate::{apic, cpu, println};
use core::arch::asm;
use core::sync::atomic::Ordering::SeqCst;

/// Where fresh pages are taken from: nothing of this kernel is there.
const FRESH: u64 = 32 << 20;
const PAGE: u64 = 4096;
const IO_APIC: u64 = 0xfec0_0000;
const TSC_DEADLINE: u32 = 0x6e0;
const LVT_TIMER: u32 = 0x32;
const SELF_IPI: u32 = 0x3f;
const VECTOR: u32 = 0x40;
/// TSC-deadline mode (Intel SDM vol. 3 §11.5.4.1).
const DEADLINE_MODE: u32 = 2 << 17;
/// How far ahead the timer is set, in ticks.
const AHEAD: u64 = 20_000;

/// Prints `measure NAME TICKS` for each kind of exit: the mean of `rounds`, less the same loop
/// without the instruction.
pub fn run(rounds: u64, boot: &Boot) {
    let rounds = rounds.max(1);
    apic::enable();
    let empty = ticks(rounds, |_| ());
    let show = |name: &str, ticks: u64| {
        println!("measure {name} {}", ticks.saturating_sub(empty) / rounds);
    };
    show("cpuid", ticks(rounds, |_| _ = cpuid(0x4000_0000, 0)));
    show("vmmcall", ticks(rounds, |_| vmmcall()));
    show("out", ticks(rounds, |_| outb(0x80, 0)));
    show("mmio-read", ticks(rounds, |_| _ = read(IO_APIC)));
    show("mmio-write", ticks(rounds, |_| _ = write(IO_APIC, 0)));
    let pages = rounds.min((boot.low_end.saturating_sub(FRESH)) / PAGE).max(1);
    let touched = ticks(pages, |page| _ = write(FRESH + page * PAGE, 1));
    println!("measure fresh-page {}", touched / pages);
    enable_interrupts();
    show("self-ipi", ticks(rounds, |_| wait(|| apic::set(SELF_IPI, VECTOR))));
    timer(rounds);
    cpu::disable_interrupts();
}

/// How late a timer's interrupt is, seen from its handler's return.
fn timer(rounds: u64) {
    apic::set(LVT_TIMER, DEADLINE_MODE | VECTOR);
    let mut late = 0;
    for _ in 0..rounds {
        let deadline = cycles() + AHEAD;
        wait(|| _ = wrmsr(TSC_DEADLINE, deadline));
        late += cycles().saturating_sub(deadline);
    }
    println!("measure timer {}", late / rounds);
}

/// Does something that an interrupt follows, and waits for that.
fn wait(cause: impl FnOnce()) {
    let before = INTERRUPTS.load(SeqCst);
    cause();
    while INTERRUPTS.load(SeqCst) == before {
        core::hint::spin_loop();
    }
}

fn ticks(rounds: u64, mut work: impl FnMut(u64)) -> u64 {
    let start = cycles();
    for round in 0..rounds {
        work(round);
    }
    cycles() - start
}

/// KVM's hypercall of a number that it does not have: there and back.
fn vmmcall() {
    // SAFETY: changes RAX only, whatever the answer.
    unsafe { asm!(".byte 0x0f, 0x01, 0xd9", inout("rax") 0x1000u64 => _) };
}

/// The cycle counter.
fn cycles() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}
