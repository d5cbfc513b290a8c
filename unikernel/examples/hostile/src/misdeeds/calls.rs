//! Hypercalls that do not exist, with arguments at every edge, and other ports.

use super::{FOUR_GIB, end_of_memory, misdeeds, text};
use crate::Outcome;
use core::arch::asm;
use core::ptr::with_exposed_provenance_mut;
use unikernel::raw::{self, Halt, Poll, Puts, number};
use unikernel::{console, println};

misdeeds! {
    "hypercall-0" => Ended, unknown::<0>;
    "hypercall-9" => Ended, unknown::<9>;
    "hypercall-100" => Ended, unknown::<100>;
    "port-in" => Ended, port_in;
    "port-byte" => Ended, port_byte;
    "port-word" => Ended, port_word;
    "port-other" => Ended, port_other;
    "puts-oob" => Ended, || puts(end_of_memory() as u64 - 8, 9);
    "puts-beyond" => Ended, || puts(end_of_memory() as u64, 1);
    "puts-wrap" => Ended, || puts(u64::MAX - 15, 32);
    "puts-wrap-to-end" => Ended, || puts(text() as u64, u64::MAX - text() as u64 + 1);
    "puts-4g" => Ended, || puts(text() as u64, FOUR_GIB);
    "puts-max" => Ended, || puts(0, u64::MAX);
    "puts-high-bits" => Ended, || puts(text() as u64 + FOUR_GIB, 16);
    "puts-end" => Harmless, puts_end;
    "puts-empty" => Harmless, || puts(text() as u64, 0);
    "puts-empty-end" => EndedOrHarmless, || puts(end_of_memory() as u64, 0);
    "puts-empty-beyond" => EndedOrHarmless, || puts(u64::MAX, 0);
    "puts-junk" => Harmless, puts_junk;
    "puts-null" => EndedOrHarmless, || puts(0, 16);
    "puts-pagetables" => EndedOrHarmless, || puts(0x2000, 64);
    "puts-all-memory" => EndedOrHarmless, || puts(0, end_of_memory() as u64);
    "puts-3m" => Harmless, || puts((end_of_memory() - (3 << 20)) as u64, 3 << 20);
    "arg-end" => Ended, || walltime_at(end_of_memory() - 4);
    "arg-beyond" => Ended, || walltime_at(end_of_memory());
    "arg-unmapped" => Ended, || walltime_at(0xffff_f000);
    "arg-wrap" => Ended, || walltime_at(0xffff_fffc);
    "arg-last" => Harmless, || walltime_at(end_of_memory() - 8);
    "arg-unaligned" => Harmless, || walltime_at(end_of_memory() - 11);
    "arg-null" => EndedOrHarmless, || walltime_at(0);
    "arg-text" => Fault, || walltime_at(text());
    "halt-bad-cookie" => Ended, || halt(end_of_memory() as u64 - 511, 0);
    "halt-wrap-cookie" => Ended, || halt(u64::MAX - 100, 0);
    "poll-forever" => RunsOn, || poll(u64::MAX);
    "poll-long" => RunsOn, || poll(i64::MAX.unsigned_abs());
}

fn unknown<const NUMBER: u32>() -> Outcome {
    let mut argument = [0u64; 8];
    // SAFETY: whatever a host does with it, the argument is ours.
    unsafe { raw::hypercall::<NUMBER, _>(&raw mut argument) };
    Ok(())
}

fn puts(data: u64, len: u64) -> Outcome {
    let mut argument = Puts { data, len };
    // SAFETY: the host only reads what the argument names.
    unsafe { raw::hypercall::<{ number::PUTS }, _>(&raw mut argument) };
    println!();
    Ok(())
}

/// The last bytes of memory, which are heap and unused.
fn puts_end() -> Outcome {
    let len = 16;
    let at = with_exposed_provenance_mut::<u8>(end_of_memory() - len);
    // SAFETY: the heap's last bytes, and this program allocates nothing.
    unsafe { at.copy_from_nonoverlapping(b"at the very end\n".as_ptr(), len) };
    puts(at.addr() as u64, len as u64)
}

/// Every byte value, four times.
fn puts_junk() -> Outcome {
    for _ in 0..4 {
        console::write(&core::array::from_fn::<u8, 256, _>(|i| i.to_le_bytes()[0]));
    }
    Ok(())
}

fn walltime_at(argument: usize) -> Outcome {
    // SAFETY: none: where it is text, the host must not write.
    unsafe { raw::hypercall_at::<{ number::WALLTIME }>(argument) };
    Ok(())
}

fn halt(cookie: u64, exit_status: i32) -> Outcome {
    let mut argument = Halt { cookie, exit_status };
    // SAFETY: the host only reads.
    unsafe { raw::hypercall::<{ number::HALT }, _>(&raw mut argument) };
    Ok(())
}

fn poll(timeout_nsecs: u64) -> Outcome {
    let mut argument = Poll { timeout_nsecs, ..Poll::default() };
    // SAFETY: the argument is what this hypercall reads and writes.
    unsafe { raw::hypercall::<{ number::POLL }, _>(&raw mut argument) };
    Ok(())
}

fn port_in() -> Outcome {
    // SAFETY: reads a port that no device answers.
    unsafe { asm!("in eax, dx", in("edx") 0x502, out("eax") _) };
    Ok(())
}

fn port_byte() -> Outcome {
    // SAFETY: a hypercall's port, but one byte wide.
    unsafe { asm!("out dx, al", in("edx") 0x502, in("al") 0u8) };
    Ok(())
}

fn port_word() -> Outcome {
    // SAFETY: a hypercall's port, but two bytes wide.
    unsafe { asm!("out dx, ax", in("edx") 0x502, in("ax") 0u16) };
    Ok(())
}

fn port_other() -> Outcome {
    // SAFETY: a port that no device answers.
    unsafe { asm!("out dx, eax", in("edx") 0xcf8, in("eax") 0) };
    Ok(())
}
