//! CPUID leaves, model-specific, control and debug registers.

use super::Numbers;
use crate::cpu::{cpuid, probe, rdmsr, wrmsr};
use crate::println;
use crate::pvh::Boot;
use crate::traps::{self, DEBUGGED, Faulted};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Every leaf that anybody has, and far beyond.
pub fn cpuid_leaves(_: &Boot) {
    let mut sum = 0u32;
    for base in [0, 0x4000_0000, 0x8000_0000, 0x8fff_ff00, 0xc000_0000, 0xffff_ff00] {
        for leaf in 0..0x100u32 {
            for subleaf in (0..64).chain([u32::MAX]) {
                let [a, b, c, d] = cpuid(base | leaf, subleaf);
                sum = sum.wrapping_add(a ^ b ^ c ^ d);
            }
        }
    }
    println!("cpuid sum {sum:#x}");
}

/// Where model-specific registers are, and some where none are.
const MSRS: [(u32, u32); 8] = [
    (0, 0x2000),
    (0x4000_0000, 0x4000_0200),
    (0x4b56_4d00, 0x4b56_4d20),
    (0x8000_0000, 0x8000_0040),
    (0xc000_0000, 0xc000_2000),
    (0xc001_0000, 0xc001_1100),
    (0xdead_0000, 0xdead_0010),
    (0xffff_fff0, 0xffff_ffff),
];

fn msrs() -> impl Iterator<Item = u32> {
    MSRS.iter().flat_map(|&(start, end)| start..end)
}

/// Reads them all.
pub fn msr_reads(_: &Boot) {
    let readable = msrs().filter(|index| rdmsr(*index).is_ok()).count();
    println!("{readable} registers can be read");
}

/// Registers whose garbage would take this very kernel down, on any machine: EFER; the bases of
/// the local APIC, which it needs; its cycle counter's deadline is harmless.
const NEEDED: [u32; 2] = [0xc000_0080, 0x1b];

/// Writes garbage to them all, and what was there before.
pub fn msr_writes(_: &Boot) {
    let mut numbers = Numbers::new(1);
    let mut taken = 0u32;
    for index in msrs().filter(|index| !NEEDED.contains(index)) {
        let before = rdmsr(index);
        for value in [0, 1, u64::MAX, 1 << 63, numbers.next()] {
            taken += u32::from(wrmsr(index, value).is_ok());
        }
        if let Ok(value) = before {
            // Some cannot be written; that was counted above.
            let _ = wrmsr(index, value);
        }
    }
    println!("{taken} writes taken");
    let bits = [1 << 13, 1 << 15, 1 << 40, u64::MAX].map(|bit| wrmsr(0xc000_0080, bit).is_ok());
    println!("EFER garbage taken {bits:?}");
}

/// Reserved and contradicting bits of control registers.
pub fn control_registers(_: &Boot) {
    let mut faults = 0u32;
    for bit in 0..64u32 {
        let flip = 1u64 << bit;
        // PG, PE, WP, NE, MP, EM, TS, CD and NW of CR0 and the bits of CR4 that this kernel lives
        // on are left alone, as is LA57, which an emulator was seen to take in 64-bit mode: the
        // others are fair game.
        if !matches!(bit, 0..6 | 16 | 29..32) {
            faults += u32::from(flip_cr0(flip).is_err());
        }
        if !matches!(bit, 5 | 9 | 10 | 12) {
            faults += u32::from(flip_cr4(flip).is_err());
        }
    }
    for components in [0, 2, 4, 6, 1 << 9 | 1, 0xff, u64::MAX] {
        faults += u32::from(xsetbv(components).is_err());
    }
    println!("{faults} refused");
}

fn flip_cr0(bits: u64) -> Result<(), Faulted> {
    probe!("mov {old}, cr0; xor {bits}, {old}; mov cr0, {bits}; mov cr0, {old}",
        old = out(reg) _, bits = inout(reg) bits => _)
}

fn flip_cr4(bits: u64) -> Result<(), Faulted> {
    probe!("mov {old}, cr4; xor {bits}, {old}; mov cr4, {bits}; mov cr4, {old}",
        old = out(reg) _, bits = inout(reg) bits => _)
}

fn xsetbv(components: u64) -> Result<(), Faulted> {
    let (low, high) = (components & 0xffff_ffff, components >> 32);
    probe!("xsetbv", in("ecx") 0, in("rax") low, in("rdx") high)
}

/// What the debug registers watch. Not what the handler of their exceptions touches: a processor
/// would never get out of that, and a machine resets.
static WATCHED: AtomicU64 = AtomicU64::new(0);

/// Watches, single-steps, and sets every bit.
pub fn debug_registers(_: &Boot) {
    DEBUGGED.store(true, SeqCst);
    let watched = (&raw const WATCHED).addr() as u64;
    for control in [0x1u64, 0xf_0001, 0xffff_0455, 0xffff_ffff, 0x700] {
        let set = probe!("mov dr0, {at}; mov dr1, {at}; mov dr7, {control}",
            at = in(reg) watched, control = in(reg) control);
        let seen = WATCHED.fetch_add(1, SeqCst);
        // SAFETY: the trap flag's exceptions are counted and forgiven.
        unsafe {
            asm!(
                "pushfq",
                "or qword ptr [rsp], 0x100",
                "popfq",
                "nop",
                "nop",
                "pushfq",
                "and qword ptr [rsp], -257",
                "popfq"
            );
        }
        println!("dr7 {control:#x}: {set:?}, {seen}");
    }
    let off = probe!("mov dr7, {off}", off = in(reg) 0x400u64);
    DEBUGGED.store(false, SeqCst);
    println!("off: {off:?}");
}
