//! CPUID: what this backend can give a guest of the processor that it runs on, in one table, and
//! the answers of one vCPU.
//!
//! Offered is what a guest can use without anybody's help, and whose registers the backend keeps.
//! What a machine adds (local APIC, topology, paravirtual help) or does not want is its mode's
//! business. Bits and leaves: Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E.

use alloc::vec::Vec;
use hypervisor::vcpu::machine::CpuidEntry;

/// The leaf of extended states.
const XSTATE: u32 = 0xd;

const fn bits(list: &[u32]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < list.len() {
        mask |= 1 << list[i];
        i += 1;
    }
    mask
}

/// A leaf whose features are offered as far as the mask goes: EAX, EBX, ECX, EDX.
struct Offer {
    leaf: u32,
    subleaf: Option<u32>,
    mask: [u32; 4],
}

const fn offer(leaf: u32, mask: [u32; 4]) -> Offer {
    Offer { leaf, subleaf: None, mask }
}

const ALL: [u32; 4] = [u32::MAX; 4];

/// The whole policy. Leaves that are not named are zeros.
const OFFERS: [Offer; 22] = [
    offer(0, ALL),
    offer(
        1,
        [
            u32::MAX,
            // The CLFLUSH line size. Of EBX the rest is topology.
            0xff00,
            // SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES,
            // XSAVE, AVX, F16C, RDRAND.
            bits(&[0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30]),
            // FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, SEP, PGE, MCA, CMOV, PAT, PSE36,
            // CLFLUSH, MMX, FXSR, SSE, SSE2.
            bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26]),
        ],
    ),
    offer(2, ALL),
    Offer { leaf: 4, subleaf: Some(0), mask: [0x3fff, u32::MAX, u32::MAX, u32::MAX] },
    Offer { leaf: 4, subleaf: Some(1), mask: [0x3fff, u32::MAX, u32::MAX, u32::MAX] },
    Offer { leaf: 4, subleaf: Some(2), mask: [0x3fff, u32::MAX, u32::MAX, u32::MAX] },
    Offer { leaf: 4, subleaf: Some(3), mask: [0x3fff, u32::MAX, u32::MAX, u32::MAX] },
    Offer {
        leaf: 7,
        subleaf: Some(0),
        mask: [
            1,
            // FSGSBASE, BMI1, AVX2, FDP_EXCPTN_ONLY, SMEP, BMI2, ERMS, INVPCID, no FPU CS/DS,
            // AVX512F, DQ, RDSEED, ADX, SMAP, IFMA, CLFLUSHOPT, CLWB, AVX512PF, ER, CD, SHA, BW,
            // VL.
            bits(&[
                0, 3, 5, 6, 7, 8, 9, 10, 13, 16, 17, 18, 19, 20, 21, 23, 24, 26, 27, 28, 29, 30, 31,
            ]),
            // PREFETCHWT1, VBMI, UMIP, PKU, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG,
            // VPOPCNTDQ, RDPID, CLDEMOTE, MOVDIRI, MOVDIR64B. Not LA57: four levels suffice.
            bits(&[0, 1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 22, 25, 27, 28]),
            // AVX512_4VNNIW, 4FMAPS, FSRM, VP2INTERSECT, MD_CLEAR, SERIALIZE, AVX512_FP16.
            bits(&[2, 3, 4, 8, 10, 14, 23]),
        ],
    },
    // AVX_VNNI, AVX512_BF16, FZRM, FSRS, FSRC.
    Offer { leaf: 7, subleaf: Some(1), mask: [bits(&[4, 5, 10, 11, 12]), 0, 0, 0] },
    offer(0x8000_0000, ALL),
    offer(
        0x8000_0001,
        [
            u32::MAX,
            0,
            // LAHF, CR8 by LOCK, LZCNT, SSE4A, misaligned SSE, PREFETCHW, XOP, FMA4, TBM.
            bits(&[0, 4, 5, 6, 7, 8, 11, 16, 21]),
            // As leaf 1; SYSCALL, NX, MMX extensions, 1 GiB pages, RDTSCP, long mode, 3DNow.
            bits(&[
                0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14, 15, 16, 17, 20, 22, 23, 24, 26, 27, 29, 30,
                31,
            ]),
        ],
    ),
    offer(0x8000_0002, ALL),
    offer(0x8000_0003, ALL),
    offer(0x8000_0004, ALL),
    offer(0x8000_0005, ALL),
    offer(0x8000_0006, ALL),
    // The invariant TSC.
    offer(0x8000_0007, [0, 0, 0, 1 << 8]),
    // Address sizes; CLZERO, XSAVEERPTR.
    offer(0x8000_0008, [0xffff, bits(&[0, 2]), 0, 0]),
    offer(0x8000_0019, ALL),
    // FP128, MOVU, FP256.
    offer(0x8000_001a, [7, 0, 0, 0]),
    // No nested data breakpoints, LFENCE serializes, a null selector clears its base.
    offer(0x8000_0021, [bits(&[0, 2, 6]), 0, 0, 0]),
    Offer { leaf: XSTATE, subleaf: Some(0), mask: [0; 4] },
];

const TSC_ADJUST: u32 = 1 << 1;
const PKU: u32 = 1 << 3;
const LINEAR_48: u32 = 48 << 8;

/// What this processor (`host`: leaf and subleaf to EAX, EBX, ECX, EDX) can give to a guest that
/// may have the components `xcr0`.
pub(crate) fn supported(host: impl Fn(u32, u32) -> [u32; 4], xcr0: u64) -> Vec<CpuidEntry> {
    let mut rows = Vec::new();
    for Offer { leaf, subleaf, mask } in &OFFERS {
        let mut registers = host(*leaf, subleaf.unwrap_or(0));
        for (register, mask) in registers.iter_mut().zip(mask) {
            *register &= mask;
        }
        match leaf {
            0 => registers[0] = registers[0].min(XSTATE),
            1 if xcr0 == 0 => registers[2] &= !bits(&[12, 26, 28, 29]),
            7 if *subleaf == Some(0) => {
                registers[0] = registers[0].min(1);
                // Kept here, whether or not the processor has it.
                registers[1] |= TSC_ADJUST;
                if xcr0 & (1 << 9) == 0 {
                    registers[2] &= !PKU;
                }
            }
            0x8000_0000 => registers[0] = registers[0].min(0x8000_0021),
            0x8000_0008 => registers[0] = registers[0] & !0xff00 | LINEAR_48,
            _ => {}
        }
        if *leaf != XSTATE {
            rows.push(CpuidEntry { leaf: *leaf, subleaf: *subleaf, registers });
        }
    }
    rows.extend(extended_states(host, xcr0));
    rows
}

/// Leaf 0xd. The sizes in EBX of its first two rows follow XCR0 and are filled in later.
fn extended_states(host: impl Fn(u32, u32) -> [u32; 4], xcr0: u64) -> Vec<CpuidEntry> {
    let row = |subleaf, registers| CpuidEntry { leaf: XSTATE, subleaf: Some(subleaf), registers };
    if xcr0 == 0 {
        return Vec::new();
    }
    let mut rows = Vec::new();
    let mut size = LEGACY;
    for component in (2..63).filter(|bit| xcr0 >> bit & 1 != 0) {
        let [bytes, at, flags, _] = host(XSTATE, component);
        size = size.max(bytes.saturating_add(at));
        rows.push(row(component, [bytes, at, flags & 2, 0]));
    }
    let [low, high] = super::processor::halves(xcr0);
    rows.push(row(0, [low, size, size, high]));
    // XSAVEOPT, XSAVEC, XGETBV with ECX of 1. Not XSAVES: there is no IA32_XSS here.
    rows.push(row(1, [host(XSTATE, 1)[0] & 7, 0, 0, 0]));
    rows
}

/// The legacy region and the header of an XSAVE area.
const LEGACY: u32 = 512 + 64;

/// The answers of one vCPU.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpuid {
    /// Sorted by leaf and subleaf; a leaf without subleaves has none of its rows with one.
    rows: Vec<CpuidEntry>,
    /// The local APIC is turned off.
    no_apic: bool,
}

/// The local APIC, in EDX of leaf 1 and of 8000_0001h.
const APIC: u32 = 1 << 9;

const OSXSAVE: u32 = 1 << 27;
const OSPKE: u32 = 1 << 4;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

impl Cpuid {
    /// From a table. Of rows with the same place the first counts.
    pub fn new(table: &[CpuidEntry]) -> Self {
        let mut rows = table.to_vec();
        rows.sort_by_key(|row| (row.leaf, row.subleaf));
        rows.dedup_by_key(|row| (row.leaf, row.subleaf));
        Self { rows, no_apic: false }
    }

    /// A row as it is in the table; zeros where there is none.
    pub fn find(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let at = self.rows.partition_point(|row| row.leaf < leaf);
        let of_leaf = self.rows.get(at..).unwrap_or_default();
        let matches =
            |row: &&CpuidEntry| row.leaf == leaf && row.subleaf.is_none_or(|s| s == subleaf);
        let mut same = of_leaf.iter().take_while(|row| row.leaf == leaf);
        same.find(matches).map_or([0; 4], |row| row.registers)
    }

    /// What CPUID says to a guest with these registers.
    pub fn answer(&self, leaf: u32, subleaf: u32, cr4: u64, xcr0: u64) -> [u32; 4] {
        let mut found = self.find(leaf, subleaf);
        if self.no_apic && matches!(leaf, 1 | 0x8000_0001) {
            found[3] &= !APIC;
        }
        match (leaf, subleaf) {
            (1, _) => set(&mut found[2], OSXSAVE, cr4 & CR4_OSXSAVE != 0),
            (7, 0) => set(&mut found[2], OSPKE, cr4 & CR4_PKE != 0),
            (XSTATE, 0) if found[2] != 0 => found[1] = self.standard_size(xcr0),
            (XSTATE, 1) if found[0] & 2 != 0 => found[1] = self.compacted_size(xcr0),
            _ => {}
        }
        found
    }

    /// Whether the local APIC is told of.
    pub fn show_local_apic(&mut self, on: bool) {
        self.no_apic = !on;
    }

    /// The components that the table names: what XCR0 may have.
    pub fn components(&self) -> u64 {
        let [low, _, _, high] = self.find(XSTATE, 0);
        u64::from(high) << 32 | u64::from(low)
    }

    fn standard_size(&self, xcr0: u64) -> u32 {
        let ends = self.extended(xcr0).map(|[bytes, at, ..]| bytes.saturating_add(at));
        ends.max().unwrap_or(0).max(LEGACY)
    }

    fn compacted_size(&self, xcr0: u64) -> u32 {
        self.extended(xcr0).fold(LEGACY, |end, [bytes, _, flags, _]| {
            let start = if flags & 2 != 0 { end.next_multiple_of(64) } else { end };
            start.saturating_add(bytes)
        })
    }

    fn extended(&self, xcr0: u64) -> impl Iterator<Item = [u32; 4]> + '_ {
        let rows = self.rows.iter().filter(|row| row.leaf == XSTATE);
        let wanted = move |row: &&CpuidEntry| {
            row.subleaf.is_some_and(|s| (2..63).contains(&s) && xcr0 >> s & 1 != 0)
        };
        rows.filter(wanted).map(|row| row.registers)
    }
}

fn set(register: &mut u32, mask: u32, on: bool) {
    *register = if on { *register | mask } else { *register & !mask };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A processor that has everything.
    fn host(leaf: u32, subleaf: u32) -> [u32; 4] {
        match (leaf, subleaf) {
            (0, _) => [0x20, 1, 2, 3],
            (0x8000_0000, _) => [0x8000_0030, 0, 0, 0],
            (XSTATE, 2) => [256, 576, 0, 0],
            (XSTATE, 9) => [8, 2688, 2, 0],
            _ => [u32::MAX; 4],
        }
    }

    #[test]
    fn what_needs_help_is_not_offered() {
        let cpuid = Cpuid::new(&supported(host, 7));
        let [_, _, ecx, edx] = cpuid.find(1, 0);
        for bit in [2, 3, 5, 6, 8, 15, 18, 21, 24, 27, 31] {
            assert_eq!(ecx >> bit & 1, 0, "leaf 1 ECX {bit}");
        }
        assert_eq!(edx >> 9 & 1, 0, "no local APIC of the backend's");
        let [_, ebx, ecx, edx] = cpuid.find(7, 0);
        assert_eq!((ebx >> 2 & 1, ecx >> 16 & 1, ecx & PKU, edx >> 26), (0, 0, 0, 0));
        assert_eq!(cpuid.find(0x8000_0001, 0)[2] & 4, 0, "no SVM within");
        assert_eq!(cpuid.find(0x8000_000a, 0), [0; 4]);
        assert_eq!(cpuid.find(0x8000_0008, 0)[0] >> 8 & 0xff, 48);
        assert_eq!(cpuid.find(0, 0)[0], XSTATE);
        let without = Cpuid::new(&supported(host, 0));
        assert_eq!(without.find(1, 0)[2] & 1 << 26, 0);
        assert_eq!((without.components(), without.find(XSTATE, 0)), (0, [0; 4]));
        assert_ne!(Cpuid::new(&supported(host, 0x207)).find(7, 0)[2] & PKU, 0);
    }

    #[test]
    fn tsc_adjust_is_offered_by_processors_without_it() {
        assert_eq!(Cpuid::new(&supported(|_, _| [0; 4], 0)).find(7, 0)[1], TSC_ADJUST);
    }

    #[test]
    fn some_bits_follow_the_guests_registers() {
        let cpuid = Cpuid::new(&supported(host, 0x207));
        assert_eq!(cpuid.answer(1, 5, 0, 1)[2] & OSXSAVE, 0);
        assert_ne!(cpuid.answer(1, 5, CR4_OSXSAVE, 1)[2] & OSXSAVE, 0);
        assert_ne!(cpuid.answer(7, 0, CR4_PKE, 1)[2] & OSPKE, 0);
        assert_eq!(cpuid.components(), 0x207);
        let sizes =
            |xcr0| (cpuid.answer(XSTATE, 0, 0, xcr0)[1], cpuid.answer(XSTATE, 1, 0, xcr0)[1]);
        assert_eq!(cpuid.find(XSTATE, 0)[2], 2696);
        assert_eq!(sizes(3), (576, 576));
        assert_eq!(sizes(7), (832, 832));
        assert_eq!(sizes(0x207), (2696, 840));
        assert_eq!(sizes(0x203), (2696, 584));
    }

    #[test]
    fn a_local_apic_that_is_off_is_not_told_of() {
        let row = |leaf| CpuidEntry { leaf, subleaf: None, registers: [u32::MAX; 4] };
        let mut cpuid = Cpuid::new(&[row(1), row(7), row(0x8000_0001)]);
        let told = |cpuid: &Cpuid| [1, 7, 0x8000_0001].map(|leaf| cpuid.answer(leaf, 0, 0, 0)[3]);
        cpuid.show_local_apic(false);
        assert_eq!(told(&cpuid), [!APIC, u32::MAX, !APIC]);
        cpuid.show_local_apic(true);
        assert_eq!(told(&cpuid), [u32::MAX; 3]);
    }

    #[test]
    fn rows_are_found_by_leaf_and_subleaf() {
        let row = |leaf, subleaf, eax| CpuidEntry { leaf, subleaf, registers: [eax, 0, 0, 0] };
        let cpuid = Cpuid::new(&[
            row(4, Some(1), 41),
            row(2, None, 2),
            row(4, Some(0), 40),
            row(2, None, 9),
            row(0x4000_0000, None, 7),
        ]);
        for (leaf, subleaf, eax) in [(2, 77, 2), (4, 0, 40), (4, 1, 41), (4, 2, 0), (3, 0, 0)] {
            assert_eq!(cpuid.find(leaf, subleaf)[0], eax);
        }
        assert_eq!(cpuid.find(0x4000_0000, 0)[0], 7);
        assert_eq!(cpuid.find(u32::MAX, 0), [0; 4]);
    }
}
