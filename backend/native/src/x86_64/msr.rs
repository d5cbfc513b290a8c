//! Model-specific registers: which of them the backend keeps, in one table, and what may be
//! written to them. All others are the mode's ([`hypervisor::vcpu::VmExit::ReadMsr`]).
//!
//! The registers that VMLOAD and VMSAVE switch never leave the guest (`svm/maps.rs`).

use super::cpu::Live;
use super::cpuid::Cpuid;
use super::space::{CR0_PG, EFER_LMA, EFER_LME};
use super::tsc::Ratio;
use super::vendor::Vendor;
use crate::Platform;

/// A register that is kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Tsc,
    TscAdjust,
    Pat,
    DebugControl,
    Efer,
    TscAux,
}

/// The whole table.
const KEPT: [(u32, Kept); 6] = [
    (0x10, Kept::Tsc),
    (0x3b, Kept::TscAdjust),
    (0x1d9, Kept::DebugControl),
    (0x277, Kept::Pat),
    (0xc000_0080, Kept::Efer),
    (0xc000_0103, Kept::TscAux),
];

fn find(index: u32) -> Option<Kept> {
    KEPT.iter().find(|(number, _)| *number == index).map(|(_, kept)| *kept)
}

/// Whether a register is kept here.
#[inline]
pub(crate) fn is_kept(index: u32) -> bool {
    find(index).is_some()
}

/// The guest gets a general protection fault.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// What is in no other place.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Msrs {
    tsc_adjust: u64,
}

/// CPUID bits that allow bits of EFER: 8000_0001h EDX.
const SYSCALL: u32 = 1 << 11;
const NX: u32 = 1 << 20;
const LONG_MODE: u32 = 1 << 29;
const EFER_SCE: u64 = 1 << 0;
const EFER_NXE: u64 = 1 << 11;
const RDTSCP: u32 = 1 << 27;
const RDPID: u32 = 1 << 22;

impl Msrs {
    /// Reads one; `None` where it is the mode's.
    pub fn read<P: Platform, V: Vendor<P>>(
        &self,
        index: u32,
        v: &V,
        tsc: Ratio,
        live: &Live,
        cpuid: &Cpuid,
    ) -> Option<Result<u64, Refused>> {
        Some(Ok(match find(index)? {
            Kept::Tsc => v.tsc(tsc),
            Kept::TscAdjust => self.tsc_adjust,
            Kept::Pat => v.pat(),
            // Neither branch records nor single steps on branches.
            Kept::DebugControl => 0,
            Kept::Efer => v.efer(),
            Kept::TscAux if !has_tsc_aux(cpuid) => return Some(Err(Refused)),
            Kept::TscAux => live.tsc_aux,
        }))
    }

    /// Writes one; `None` where it is the mode's. TSC_AUX reaches the processor by the caller.
    pub fn write<P: Platform, V: Vendor<P>>(
        &mut self,
        index: u32,
        value: u64,
        v: &mut V,
        tsc: Ratio,
        live: &mut Live,
        cpuid: &Cpuid,
    ) -> Option<Result<(), Refused>> {
        match find(index)? {
            Kept::Tsc => {
                let change = value.wrapping_sub(v.tsc(tsc));
                self.move_tsc(change, v);
            }
            Kept::TscAdjust => self.move_tsc(value.wrapping_sub(self.tsc_adjust), v),
            Kept::Pat if !is_pat(value) => return Some(Err(Refused)),
            Kept::Pat => v.set_pat(value),
            Kept::DebugControl if value != 0 => return Some(Err(Refused)),
            Kept::DebugControl => {}
            Kept::Efer => match efer(value, v.efer(), v.cr0(), cpuid) {
                Some(value) => {
                    v.set_efer(value);
                    v.flush();
                }
                None => return Some(Err(Refused)),
            },
            Kept::TscAux if !has_tsc_aux(cpuid) || value >> 32 != 0 => return Some(Err(Refused)),
            Kept::TscAux => live.tsc_aux = value,
        }
        Some(Ok(()))
    }

    fn move_tsc<P: Platform, V: Vendor<P>>(&mut self, by: u64, v: &mut V) {
        self.tsc_adjust = self.tsc_adjust.wrapping_add(by);
        v.set_tsc_offset(v.tsc_offset().wrapping_add(by));
    }
}

/// Whether a write of TSC_AUX has to reach the processor.
pub(crate) fn is_tsc_aux(index: u32) -> bool {
    find(index) == Some(Kept::TscAux)
}

fn has_tsc_aux(cpuid: &Cpuid) -> bool {
    cpuid.find(0x8000_0001, 0)[3] & RDTSCP != 0 || cpuid.find(7, 0)[2] & RDPID != 0
}

fn is_pat(value: u64) -> bool {
    value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7))
}

/// What EFER becomes when `value` is written to it; `None` where that is not allowed. LMA cannot
/// be written: it follows LME and paging.
fn efer(value: u64, old: u64, cr0: u64, cpuid: &Cpuid) -> Option<u64> {
    let features = cpuid.find(0x8000_0001, 0)[3];
    let mut allowed = EFER_LMA;
    for (feature, bits) in [(SYSCALL, EFER_SCE), (NX, EFER_NXE), (LONG_MODE, EFER_LME)] {
        if features & feature != 0 {
            allowed |= bits;
        }
    }
    let toggles_long_mode = (value ^ old) & EFER_LME != 0;
    if value & !allowed != 0 || toggles_long_mode && cr0 & CR0_PG != 0 {
        return None;
    }
    Some(value & !EFER_LMA | old & EFER_LMA)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypervisor::vcpu::machine::CpuidEntry;

    fn cpuid(edx: u32) -> Cpuid {
        let registers = [0, 0, 0, edx];
        Cpuid::new(&[CpuidEntry { leaf: 0x8000_0001, subleaf: None, registers }])
    }

    #[test]
    fn efer_has_what_cpuid_says() {
        let all = cpuid(SYSCALL | NX | LONG_MODE);
        assert_eq!(efer(0x901, 0, 0, &all), Some(0x901));
        assert_eq!(efer(0x901, 0, 0, &cpuid(NX | LONG_MODE)), None);
        assert_eq!(efer(0x1000, 0, 0, &all), None, "SVME is the host's");
        assert_eq!(efer(0x4000, 0, 0, &all), None, "FFXSR");
        assert_eq!(efer(0xd00, 0x500, CR0_PG, &all), Some(0xd00));
        assert_eq!(efer(0x100, 0x500, CR0_PG, &all), Some(0x500), "LMA stays");
        assert_eq!(efer(0, 0x500, CR0_PG, &all), None, "long mode ends with paging");
    }

    #[test]
    fn memory_types_are_checked() {
        assert!(is_pat(0x0007_0406_0007_0406));
        assert!(!is_pat(2) && !is_pat(3 << 56) && !is_pat(8));
        assert_eq!(find(0x277), Some(Kept::Pat));
        assert_eq!(find(0x1b), None, "the local APIC is the mode's");
        assert!(has_tsc_aux(&cpuid(RDTSCP)) && !has_tsc_aux(&cpuid(0)));
    }
}
