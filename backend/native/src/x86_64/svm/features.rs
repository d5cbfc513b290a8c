//! Whether this processor has SVM, and which parts of it: AMD APM vol. 2 §15.4, CPUID function
//! 8000_000Ah (vol. 3, appendix E.4.9).

#![allow(unsafe_code)]

use crate::x86_64::processor::{cpuid, rdmsr};
use alloc::format;
use hypervisor::vcpu::BackendError;

/// VM_CR: bit 3 LOCK, bit 4 SVMDIS.
const VM_CR: u32 = 0xc001_0114;
const VM_CR_LOCK: u64 = 1 << 3;
const VM_CR_SVMDIS: u64 = 1 << 4;
/// CPUID 8000_0001h ECX.
const SVM: u32 = 1 << 2;
/// CPUID 8000_0001h EDX.
const PAGE_1GB: u32 = 1 << 26;
const RDTSCP: u32 = 1 << 27;
/// CPUID 8000_0008h EBX.
const IBPB: u32 = 1 << 12;
/// CPUID 8000_000Ah EDX.
const NESTED_PAGING: u32 = 1 << 0;
const NRIP_SAVE: u32 = 1 << 3;
const TSC_RATE: u32 = 1 << 4;
const DECODE_ASSISTS: u32 = 1 << 7;

/// What of SVM there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    /// Address space identifiers, 0 (the host's) among them.
    pub asids: u32,
    /// Exits tell where the next instruction is.
    pub nrip_save: bool,
    /// Exits for memory tell the instruction's bytes.
    pub decode_assists: bool,
    /// The guest's TSC may run at another rate.
    pub tsc_rate: bool,
    /// Leaves of 1 GiB.
    pub page_1gb: bool,
    /// RDTSCP, and with it TSC_AUX.
    pub rdtscp: bool,
    /// A barrier for the branch predictor.
    pub ibpb: bool,
}

/// What CPUID and VM_CR say, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// Leaf 8000_0001h.
    extended: [u32; 4],
    /// Leaf 8000_000Ah.
    svm: [u32; 4],
    vm_cr: u64,
    /// Leaf 8000_0008h.
    sizes: [u32; 4],
}

/// Finds out.
///
/// # Errors
/// If guests cannot be run with SVM here: why, and what to do.
pub(crate) fn find() -> Result<Features, BackendError> {
    let extended = cpuid(0x8000_0001, 0);
    let svm = cpuid(0x8000_000a, 0);
    let has_svm = extended[2] & SVM != 0;
    // SAFETY: a processor with SVM has VM_CR; a backend of a kernel runs in ring 0.
    let vm_cr = if has_svm { unsafe { rdmsr(VM_CR) } } else { 0 };
    judge(&Facts { extended, svm, vm_cr, sizes: cpuid(0x8000_0008, 0) })
}

fn judge(facts: &Facts) -> Result<Features, BackendError> {
    let [_, asids, _, edx] = facts.svm;
    if facts.extended[2] & SVM == 0 {
        return Err(BackendError::new(
            "this processor does not offer AMD SVM (CPUID 8000_0001h ECX bit 2): guests need it; in \
             QEMU use -cpu max, in another hypervisor turn nested virtualization on",
        ));
    }
    if facts.vm_cr & VM_CR_SVMDIS != 0 {
        return Err(BackendError::new(if facts.vm_cr & VM_CR_LOCK != 0 {
            "SVM is turned off and locked (VM_CR.SVMDIS and LOCK): turn \"SVM mode\" or \
             \"virtualization\" on in the firmware's setup"
        } else {
            "SVM is turned off (VM_CR.SVMDIS): turn \"SVM mode\" or \"virtualization\" on in the \
             firmware's setup"
        }));
    }
    if edx & NESTED_PAGING == 0 {
        return Err(BackendError::new(
            "this processor's SVM has no nested paging (CPUID 8000_000Ah EDX bit 0): guests need it",
        ));
    }
    if asids < 2 {
        return Err(BackendError::new(format!(
            "this processor's SVM has {asids} address space identifiers: guests need at least 2"
        )));
    }
    Ok(Features {
        asids,
        nrip_save: edx & NRIP_SAVE != 0,
        decode_assists: edx & DECODE_ASSISTS != 0,
        tsc_rate: edx & TSC_RATE != 0,
        page_1gb: facts.extended[3] & PAGE_1GB != 0,
        rdtscp: facts.extended[3] & RDTSCP != 0,
        ibpb: facts.sizes[1] & IBPB != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Facts = Facts {
        extended: [0, 0, SVM, PAGE_1GB],
        svm: [1, 16, 0, NESTED_PAGING],
        vm_cr: 0,
        sizes: [0; 4],
    };

    #[test]
    fn what_is_missing_is_said() {
        let text = |facts| judge(&facts).unwrap_err().text;
        assert!(text(Facts { extended: [0; 4], ..GOOD }).contains("does not offer AMD SVM"));
        assert!(text(Facts { vm_cr: VM_CR_SVMDIS, ..GOOD }).contains("turned off (VM_CR"));
        assert!(text(Facts { vm_cr: VM_CR_SVMDIS | VM_CR_LOCK, ..GOOD }).contains("and locked"));
        assert!(text(Facts { svm: [1, 16, 0, 0], ..GOOD }).contains("no nested paging"));
        assert!(text(Facts { svm: [1, 1, 0, 1], ..GOOD }).contains("at least 2"));
    }

    #[test]
    fn what_is_there_is_found() {
        let found = judge(&Facts { vm_cr: VM_CR_LOCK, ..GOOD }).unwrap();
        assert_eq!((found.asids, found.page_1gb, found.nrip_save), (16, true, false));
        assert!(!found.ibpb && judge(&Facts { sizes: [0, IBPB, 0, 0], ..GOOD }).unwrap().ibpb);
        let all = Facts { svm: [1, 16, 0, u32::MAX], ..GOOD };
        assert!(judge(&all).unwrap().decode_assists);
    }
}
