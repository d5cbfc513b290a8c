//! Instructions of ring 0.

#![allow(unsafe_code)]

use super::halves;
use core::arch::asm;

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
