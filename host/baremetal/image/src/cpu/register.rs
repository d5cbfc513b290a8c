//! Control, model-specific and extended control registers; CPUID; the cycle counter.

use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, _rdtsc};
use core::sync::atomic::{AtomicU64, Ordering};

/// Extended feature enable register.
#[allow(dead_code)]
pub const EFER: u32 = 0xc000_0080;
/// Base of GS.
pub const GS_BASE: u32 = 0xc000_0101;

/// CPUID of a leaf and subleaf: EAX, EBX, ECX, EDX; zeros beyond the last leaf.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let last = __cpuid_count(leaf & 0xffff_0000, 0).eax;
    if leaf > last {
        return [0; 4];
    }
    let r = __cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// The cycle counter.
pub fn cycles() -> u64 {
    // SAFETY: every 64-bit processor has it.
    unsafe { _rdtsc() }
}

/// Reads a model-specific register.
///
/// # Safety
/// The processor has it.
#[allow(dead_code)]
pub unsafe fn rdmsr(index: u32) -> u64 {
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
/// The processor has it, and the value leaves this program's world as it expects it.
#[allow(clippy::cast_possible_truncation)]
pub unsafe fn wrmsr(index: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: as the caller promises.
    unsafe { asm!("wrmsr", in("ecx") index, in("eax") low, in("edx") high, options(nostack)) };
}

/// Reads CR2, the address of the last page fault.
pub fn cr2() -> u64 {
    let value;
    // SAFETY: reading has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack)) };
    value
}

/// Reads CR3, the root of the page tables.
pub fn cr3() -> u64 {
    let value;
    // SAFETY: reading has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack)) };
    value
}

/// Loads CR3.
///
/// # Safety
/// The tables map everything that is in use as it is.
pub unsafe fn set_cr3(root: u64) {
    // SAFETY: as the caller promises.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack)) };
}

/// Forgets what the processor remembers of an address's mapping.
pub fn flush_page(at: usize) {
    // SAFETY: costs time at most.
    unsafe { asm!("invlpg [{}]", in(reg) at, options(nostack)) };
}

/// Sets an extended control register.
///
/// # Safety
/// CR4.OSXSAVE is set and the processor has these components.
#[allow(clippy::cast_possible_truncation)]
pub unsafe fn xsetbv(value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: as the caller promises.
    unsafe { asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nomem, nostack)) };
}

const OSFXSR: u64 = 1 << 9;
const OSXMMEXCPT: u64 = 1 << 10;
const OSXSAVE: u64 = 1 << 18;
const SMEP: u64 = 1 << 20;
const SMAP: u64 = 1 << 21;

/// Components of XCR0 that guests may have: x87, SSE, AVX and the three of AVX-512, PKRU.
const GUEST_COMPONENTS: u64 = 0x2e7;

/// What [`find_components`] found; CPUID may be slow, and this is asked for often.
static COMPONENTS: AtomicU64 = AtomicU64::new(0);

/// The components that guests may be given, of those that the processor has; 0 without XSAVE.
pub fn guest_components() -> u64 {
    COMPONENTS.load(Ordering::Relaxed)
}

fn find_components() -> u64 {
    if cpuid(1, 0)[2] & (1 << 26) == 0 {
        return 0;
    }
    let [low, .., high] = cpuid(0xd, 0);
    let all = (u64::from(high) << 32 | u64::from(low)) & GUEST_COMPONENTS;
    // AVX-512 comes whole or not at all, and only with AVX.
    if all & 0xe4 == 0xe4 { all } else { all & !0xe0 }
}

/// Sets CR4 and XCR0 as this program wants them on every CPU.
pub fn init_control() {
    let [_, ebx, ..] = cpuid(7, 0);
    let mut set = OSFXSR | OSXMMEXCPT;
    if ebx & (1 << 7) != 0 {
        set |= SMEP;
    }
    if ebx & (1 << 20) != 0 {
        set |= SMAP;
    }
    let components = find_components();
    COMPONENTS.store(components, Ordering::Relaxed);
    if components != 0 {
        set |= OSXSAVE;
    }
    // SAFETY: only what the processor has; no page here is a user's.
    unsafe {
        asm!("mov {t}, cr4", "or {t}, {s}", "mov cr4, {t}", t = out(reg) _, s = in(reg) set,
             options(nomem, nostack));
        if components != 0 {
            xsetbv(components);
        }
    }
}
