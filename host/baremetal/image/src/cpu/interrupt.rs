//! Interrupts. They come only where they are let in ([`window`], [`wait`]), with no lock held, so
//! a handler may take any.

use super::apic::{self, vector};
use super::local;
use crate::{devices, serial};
use core::arch::{asm, naked_asm};

/// Saves what a call may change and calls [`handle`].
#[unsafe(naked)]
extern "C" fn stub<const VECTOR: u8>() {
    naked_asm!(
        "push rax; push rcx; push rdx; push rsi; push rdi; push r8; push r9; push r10; push r11",
        "mov edi, {vector}",
        "cld",
        "call {handle}",
        "pop r11; pop r10; pop r9; pop r8; pop rdi; pop rsi; pop rdx; pop rcx; pop rax",
        "iretq",
        vector = const VECTOR,
        handle = sym handle,
    )
}

/// The stubs and their vectors.
pub static STUBS: [(u8, extern "C" fn()); 5] = [
    (vector::TIMER, stub::<{ vector::TIMER }>),
    (vector::KICK, stub::<{ vector::KICK }>),
    (vector::SERIAL, stub::<{ vector::SERIAL }>),
    (vector::DEVICE, stub::<{ vector::DEVICE }>),
    (vector::SPURIOUS, stub::<{ vector::SPURIOUS }>),
];

/// What is due is seen by whoever let the interrupt in: a handler only notes it.
extern "C" fn handle(number: u32) {
    match u8::try_from(number).unwrap_or(vector::SPURIOUS) {
        vector::TIMER => local::this().timer.set(u64::MAX),
        vector::SERIAL => serial::interrupt(),
        vector::DEVICE => devices::interrupt(),
        vector::SPURIOUS => return,
        _ => {}
    }
    apic::end_of_interrupt();
}

/// Lets pending interrupts in.
pub fn window() {
    // SAFETY: handlers touch nothing that is in use here, as no lock is held.
    unsafe { asm!("sti", "nop", "cli") };
}

/// Waits for an interrupt and takes it. One that was pending is not lost.
pub fn wait() {
    // SAFETY: as above; STI takes effect after HLT has begun.
    unsafe { asm!("sti", "hlt", "cli") };
}
