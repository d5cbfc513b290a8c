//! Instructions that have no other name in Rust: model-specific and debug registers, XCR0, CPUID.

#![allow(unsafe_code)]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};

/// CPUID of a leaf and subleaf: EAX, EBX, ECX, EDX; zeros beyond the last leaf of its group.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    if leaf > __cpuid(leaf & 0xffff_0000).eax {
        return [0; 4];
    }
    let r = __cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// The host's cycle counter.
pub(crate) fn rdtsc() -> u64 {
    // SAFETY: every 64-bit processor has it, and the kernel around does not forbid it to itself.
    unsafe { _rdtsc() }
}

/// Reads a model-specific register.
///
/// # Safety
/// The processor has it, and this runs in ring 0.
pub(crate) unsafe fn rdmsr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: as the caller promises.
    unsafe {
        asm!("rdmsr", in("ecx") index, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The processor has it and takes the value, this runs in ring 0, and what the register governs
/// is the backend's to change.
pub(crate) unsafe fn wrmsr(index: u32, value: u64) {
    let [low, high] = halves(value);
    // SAFETY: as the caller promises.
    unsafe { asm!("wrmsr", in("ecx") index, in("eax") low, in("edx") high, options(nostack)) };
}

/// Reads XCR0.
///
/// # Safety
/// CR4.OSXSAVE is set.
pub(crate) unsafe fn xgetbv() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: as the caller promises.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes XCR0.
///
/// # Safety
/// CR4.OSXSAVE is set, the processor has these components, and this runs in ring 0.
pub(crate) unsafe fn xsetbv(value: u64) {
    let [low, high] = halves(value);
    // SAFETY: as the caller promises.
    unsafe { asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nomem, nostack)) };
}

/// Reads DR0 to DR3.
///
/// # Safety
/// This runs in ring 0, and DR7 does not catch accesses to debug registers.
pub(crate) unsafe fn debug_addresses() -> [u64; 4] {
    let (a, b, c, d): (u64, u64, u64, u64);
    // SAFETY: as the caller promises.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
            out(reg) a, out(reg) b, out(reg) c, out(reg) d, options(nomem, nostack));
    }
    [a, b, c, d]
}

/// Writes DR0 to DR3.
///
/// # Safety
/// As for [`debug_addresses`]; breakpoints that DR7 enables move.
pub(crate) unsafe fn set_debug_addresses([a, b, c, d]: [u64; 4]) {
    // SAFETY: as the caller promises.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) a, in(reg) b, in(reg) c, in(reg) d, options(nomem, nostack));
    }
}

/// The low and the high half.
#[allow(clippy::cast_possible_truncation)]
pub(crate) const fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}
