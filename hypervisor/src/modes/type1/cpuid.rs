//! What CPUID tells a guest: the backend's rows, less what this machine does not have, plus what
//! it does.
//!
//! The rule for features: a backend offers what its vCPUs can do and keeps the registers that
//! belong to it; here is taken away what needs a part that the machine lacks (performance
//! counters, monitors, thermal sensors, hypervisors within), and added what the machine itself
//! gives (local APIC, topology, paravirtual help).

use super::paravirt;
use crate::vcpu::machine::CpuidEntry;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// What a row depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The vCPU's number: its APIC ID.
    pub index: u32,
    /// vCPUs of the machine: cores of one package.
    pub count: u32,
    /// Frequency of the TSC in Hz.
    pub frequency: u64,
}

/// Bits that are taken away from a row and added to it: EAX, EBX, ECX, EDX.
struct Change {
    leaf: u32,
    subleaf: Option<u32>,
    clear: [u32; 4],
    set: [u32; 4],
}

const fn bits(list: &[u32]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < list.len() {
        mask |= 1 << list[i];
        i += 1;
    }
    mask
}

/// The whole policy for single bits.
const CHANGES: [Change; 7] = [
    Change {
        leaf: 1,
        subleaf: None,
        // EBX: the initial APIC ID and the count of processors are of the place.
        // ECX: DTES64, MONITOR, DS-CPL, VMX, SMX, EST, TM2, SDBG, xTPR, PDCM, DCA.
        // EDX: MCE and MCA stay (with no banks); HTT is of the place; DS, ACPI, TM, PBE go.
        clear: [
            0,
            0xffff_0000,
            bits(&[2, 3, 4, 5, 6, 7, 8, 11, 14, 15, 18]),
            bits(&[21, 22, 28, 29, 31]),
        ],
        // ECX: x2APIC, TSC-deadline, hypervisor. EDX: APIC, MTRR.
        set: [0, 0, bits(&[21, 24, 31]), bits(&[9, 12])],
    },
    Change {
        leaf: 6,
        subleaf: None,
        clear: [!0, !0, !0, !0],
        // The local APIC's timer always runs (ARAT).
        set: [bits(&[2]), 0, 0, 0],
    },
    Change {
        leaf: 7,
        subleaf: Some(0),
        // EBX: SGX, RDT monitoring and allocation, processor trace.
        // ECX: WAITPKG, CET shadow stacks, TME, key locker, bus lock detection, ENQCMD, SGX_LC,
        // PKS. EDX: PCONFIG, architectural LBR, CET IBT, CORE_CAPABILITIES, hybrid, UINTR.
        clear: [
            0,
            bits(&[2, 12, 15, 25]),
            bits(&[5, 7, 13, 23, 24, 29, 30, 31]),
            bits(&[5, 15, 18, 19, 20, 30]),
        ],
        set: [0; 4],
    },
    Change {
        leaf: 0x8000_0001,
        subleaf: None,
        // ECX: SVM, extended APIC space, OSVW, IBS, SKINIT, watchdog, LWP, node ID, topology
        // extensions, performance counters, data breakpoints, MONITORX.
        clear: [0, 0, bits(&[2, 3, 9, 10, 12, 13, 15, 19, 22, 23, 24, 26, 27, 28, 29]), 0],
        // EDX: APIC.
        set: [0, 0, 0, bits(&[9])],
    },
    Change {
        leaf: 0x8000_0007,
        subleaf: None,
        // Of power management only the invariant TSC.
        clear: [!0, !0, !0, !bits(&[8])],
        set: [0; 4],
    },
    Change {
        leaf: 0x8000_0008,
        subleaf: None,
        // ECX: the count of cores is of the place.
        clear: [0, 0, 0xffff, 0],
        set: [0; 4],
    },
    Change { leaf: 5, subleaf: None, clear: [!0; 4], set: [0; 4] },
];

/// Leaves that read as zero: parts that the machine lacks, or that are written anew below.
const HIDDEN: [RangeInclusive<u32>; 11] = [
    0x09..=0x0b,               // DCA, performance counters, topology
    0x0f..=0x10,               // RDT
    0x12..=0x12,               // SGX
    0x14..=0x18,               // trace, frequencies (paravirtual ones instead), SoC, TLBs
    0x1a..=0x1c,               // hybrid, PCONFIG, LBR
    0x1f..=0x22,               // topology, HRESET, TDX
    0x4000_0000..=0x4fff_ffff, // other hypervisors
    0x8000_000a..=0x8000_000a, // SVM
    0x8000_001b..=0x8000_001e, // IBS, LWP, topology
    0x8000_001f..=0x8000_0020, // SEV, RDT
    0x8000_0022..=0x8fff_ffff, // counters and newer
];

/// The rows for one vCPU.
pub fn policy(supported: &[CpuidEntry], place: Place) -> Vec<CpuidEntry> {
    let hidden = |entry: &&CpuidEntry| !HIDDEN.iter().any(|range| range.contains(&entry.leaf));
    let mut rows: Vec<CpuidEntry> = supported.iter().filter(hidden).copied().collect();
    for row in &mut rows {
        let leaf = row.leaf;
        for change in CHANGES.iter().filter(|change| change.leaf == leaf) {
            change.apply(row);
        }
        locate(row, place);
    }
    rows.extend(topology(place));
    rows.extend(paravirt::cpuid(supported, place.frequency));
    let highest = |range: RangeInclusive<u32>, rows: &[CpuidEntry]| {
        rows.iter().map(|row| row.leaf).filter(|leaf| range.contains(leaf)).max()
    };
    for (leaf, range) in [(0, 0..=0xffff), (0x8000_0000, 0x8000_0000..=0x8000_ffff)] {
        let highest = highest(range, &rows).unwrap_or(leaf);
        let first = rows.iter_mut().find(|row| row.leaf == leaf);
        first.into_iter().for_each(|row| row.registers[0] = highest);
    }
    rows
}

impl Change {
    fn apply(&self, row: &mut CpuidEntry) {
        if self.subleaf.is_some_and(|subleaf| row.subleaf.is_some_and(|found| found != subleaf)) {
            return;
        }
        for (index, register) in row.registers.iter_mut().enumerate() {
            *register = *register & !self.clear[index] | self.set[index];
        }
    }
}

/// How many bits of an APIC ID number the cores.
fn core_bits(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

/// What depends on the vCPU's place, in the backend's rows.
fn locate(row: &mut CpuidEntry, place: Place) {
    let Place { index, count, .. } = place;
    let [eax, ebx, ecx, edx] = &mut row.registers;
    let several = count > 1;
    match row.leaf {
        1 => {
            *ebx |= index << 24;
            if several {
                *ebx |= count.min(0xff) << 16;
                *edx |= 1 << 28;
            }
        }
        // A cache row: levels 1 and 2 are of a core, the others of the package.
        4 if *eax & 0x1f != 0 => {
            let cores = (1 << core_bits(count)) - 1;
            let sharing = if *eax >> 5 & 7 >= 3 { cores } else { 0 };
            *eax = *eax & 0x3fff | sharing << 14 | cores.min(0x3f) << 26;
        }
        // AMD: all cores are of one package.
        0x8000_0001 => *ecx = *ecx & !2 | u32::from(several) << 1,
        0x8000_0008 => *ecx |= core_bits(count) << 12 | (count - 1).min(0xff),
        _ => {}
    }
}

/// Leaf 0x0b: one thread to a core, all cores in one package (Intel SDM vol. 2, CPUID).
fn topology(place: Place) -> [CpuidEntry; 3] {
    let row = |subleaf: u32, eax, ebx, kind: u32| CpuidEntry {
        leaf: 0x0b,
        subleaf: Some(subleaf),
        registers: [eax, ebx, kind << 8 | subleaf, place.index],
    };
    [row(0, 0, 1, 1), row(1, core_bits(place.count), place.count, 2), row(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place = Place { index: 2, count: 4, frequency: 2_000_000_000 };

    fn row(leaf: u32, subleaf: Option<u32>, registers: [u32; 4]) -> CpuidEntry {
        CpuidEntry { leaf, subleaf, registers }
    }

    fn find(rows: &[CpuidEntry], leaf: u32, subleaf: Option<u32>) -> [u32; 4] {
        let found = rows.iter().find(|row| row.leaf == leaf && row.subleaf == subleaf);
        found.map_or([0; 4], |row| row.registers)
    }

    #[test]
    fn everything_offered_becomes_this_machine() {
        let all: Vec<_> =
            [0, 1, 5, 6, 0xa, 0x16, 0x8000_0000, 0x8000_0001, 0x8000_0008, 0x8000_000a]
                .into_iter()
                .map(|leaf| row(leaf, None, [!0; 4]))
                .chain([row(7, Some(0), [!0; 4]), row(4, Some(3), [0x163, 1, 2, 3])])
                .collect();
        let rows = policy(&all, PLACE);
        let one = find(&rows, 1, None);
        assert_eq!(one[1] >> 16, 2 << 8 | 4);
        assert_eq!((one[2] >> 5 & 1, one[2] >> 3 & 1, one[2] >> 31), (0, 0, 1));
        assert_eq!(find(&rows, 5, None), [0; 4]);
        assert_eq!(find(&rows, 6, None), [4, 0, 0, 0]);
        assert_eq!(find(&rows, 0xa, None), [0; 4]);
        assert_eq!(find(&rows, 0x8000_000a, None), [0; 4]);
        assert_eq!(find(&rows, 0x8000_0001, None)[2] >> 2 & 1, 0);
        assert_eq!(find(&rows, 0x8000_0008, None)[2] & 0xf0ff, 2 << 12 | 3);
        assert_eq!(find(&rows, 4, Some(3))[0], 0x163 | 3 << 14 | 3 << 26);
        assert_eq!(find(&rows, 0x0b, Some(1)), [2, 4, 0x201, 2]);
        assert_eq!(find(&rows, 0, None)[0], 0x0b);
        assert_eq!(find(&rows, 0x8000_0000, None)[0], 0x8000_0008);
        let signature = find(&rows, 0x4000_0000, None);
        assert_eq!(signature[1], u32::from_le_bytes(*b"KVMK"));
    }

    proptest! {
        /// Whatever a backend offers: never a hypervisor within, and no leaf twice.
        #[test]
        fn nothing_dangerous_comes_through(
            leaves in prop::collection::btree_set(
                prop_oneof![0u32..0x30, 0x4000_0000u32..0x4000_0020, 0x8000_0000u32..0x8000_0030],
                0..40,
            ),
            registers: [u32; 4],
            index in 0u32..255,
        ) {
            let all: Vec<_> = leaves.iter().map(|leaf| row(*leaf, None, registers)).collect();
            let rows = policy(&all, Place { index, count: 255, frequency: 1 });
            prop_assert_eq!(find(&rows, 1, None)[2] & 1 << 5, 0);
            prop_assert_eq!(find(&rows, 0x8000_0001, None)[2] & 4, 0);
            let mut keys: Vec<_> = rows.iter().map(|row| (row.leaf, row.subleaf)).collect();
            keys.sort_unstable();
            let count = keys.len();
            keys.dedup();
            prop_assert_eq!(keys.len(), count);
        }
    }
}
