//! Instructions that have no other name in Rust: model-specific and debug registers, XCR0, CPUID.
//! Those of ring 0 are recorded in tests, not carried out.

#![allow(unsafe_code)]

#[cfg(not(test))]
mod privileged;
#[cfg(test)]
#[path = "processor/recorded.rs"]
pub(crate) mod privileged;

pub(crate) use privileged::{debug_addresses, rdmsr, set_debug_addresses, wrmsr, xgetbv, xsetbv};

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

/// The low and the high half.
#[allow(clippy::cast_possible_truncation)]
pub(crate) const fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}
