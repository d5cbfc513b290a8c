//! Addresses without memory, code that changes, page tables and strings.

use super::Numbers;
use crate::cpu::{probe, read, write};
use crate::println;
use crate::pvh::Boot;
use crate::traps;
use core::arch::asm;

/// Addresses that `beyond` leaves alone: the emulated chips, which have a misdeed of their own.
const CHIPS: core::ops::Range<u64> = 0xc000_0000..0x1_0000_0000;

/// Touches what is not this machine's memory: every MiB up to 4 GiB, every 256 MiB up to 512 GiB,
/// and the edges of its memory. Each place costs an exit, and tests run in emulated machines.
pub fn beyond(boot: &Boot) {
    let low = (boot.low_end..CHIPS.start).step_by(1 << 20);
    let high = (boot.ram_end.max(CHIPS.end)..512 << 30).step_by(256 << 20);
    let edges = [boot.low_end, boot.ram_end].into_iter().flat_map(|end| end..end + 64);
    let (mut kept, mut faults, mut touched) = (0u32, 0u32, 0u32);
    for at in low.chain(high).chain(edges.step_by(4)) {
        touched += 1;
        match (write(at, 0x5aa5_1234), read(at)) {
            (Ok(()), Ok(0x5aa5_1234)) => kept += 1,
            (Ok(()), Ok(_)) => {}
            _ => faults += 1,
        }
    }
    println!("{touched} places touched, {faults} faults, {kept} kept a value");
}

/// Code that rewrites the instruction behind itself, many times.
pub fn self_modify(_: &Boot) {
    let mut wrong = 0u32;
    for round in 0..10_000u32 {
        let result: u32;
        // SAFETY: the image is writable; only the immediate of the next instruction changes, and
        // a jump lies between the store and it.
        unsafe {
            asm!(
                "lea {at}, [rip + 3f + 1]",
                "mov dword ptr [{at}], {round:e}",
                "jmp 3f",
                "3: mov eax, 0x11223344",
                at = out(reg) _, round = in(reg) round, out("eax") result,
            );
        }
        wrong += u32::from(result != round);
    }
    println!("{wrong} stale instructions");
}

/// Page tables of garbage, and of themselves, for one access each.
pub fn page_tables(_: &Boot) {
    let mut numbers = Numbers::new(7);
    let mut faults = 0u32;
    let entry = pml4_entry();
    for round in 0..2_000u64 {
        let garbage = match round % 4 {
            // The table is its own table.
            0 => cr3() | 3,
            1 => numbers.next() | 1,
            2 => numbers.next() & 0x000f_ffff_ffff_f000 | 7,
            _ => numbers.next() & !1,
        };
        // SAFETY: the entry maps only addresses from 512 GiB, which nothing uses.
        unsafe { entry.write_volatile(garbage) };
        flush();
        faults += u32::from(read(1 << 39 | numbers.next() & 0x7f_ffff_fffc).is_err());
    }
    // SAFETY: as above.
    unsafe { entry.write_volatile(0) };
    flush();
    println!("{faults} faults");
}

fn cr3() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0}, cr3", out(reg) value, options(nomem, nostack)) };
    value
}

/// The second entry of the root table.
fn pml4_entry() -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(crate::pvh::address(cr3() & !0xfff) + 8)
}

fn flush() {
    // SAFETY: reloads the same value.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)) };
}

/// String instructions over memory, nothing and ports, of many elements.
pub fn long_strings(boot: &Boot) {
    let beyond = boot.low_end.next_multiple_of(4096);
    let mut results = [Ok(()); 4];
    results[0] = probe!("rep stosb", inout("rdi") beyond => _, inout("rcx") 5_000u64 => _,
        in("al") 7u8);
    results[1] = probe!("rep movsd", inout("rdi") beyond => _,
        inout("rsi") beyond + (1 << 20) => _, inout("rcx") 2_000u64 => _);
    results[2] = probe!("rep outsb", in("dx") 0x80u16, inout("rsi") 0x10_0000u64 => _,
        inout("rcx") 5_000u64 => _);
    results[3] = probe!("rep insb", in("dx") 0x80u16, inout("rdi") beyond => _,
        inout("rcx") 2_000u64 => _);
    println!("{results:?}");
}
