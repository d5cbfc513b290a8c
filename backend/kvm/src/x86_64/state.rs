//! A vCPU's first state, its CPUID and its cycle counter.
//!
//! KVM API §4.11 to §4.14 (registers), §4.46 (supported CPUID), §4.55 (TSC frequency).

use crate::error::{errno, refused};
use hypervisor::vcpu::machine::CpuidEntry;
use hypervisor::vcpu::{BackendError, Segment, VcpuState, X86State};
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2, kvm_dtable, kvm_fpu, kvm_regs,
    kvm_segment, kvm_sregs,
};
use kvm_ioctls::{Kvm, VcpuFd};
use rustix::io::Errno;

/// Room for CPUID leaves: what kernels have today, then what KVM allows at most.
const CPUID_ENTRIES: [usize; 2] = [kvm_bindings::KVM_MAX_CPUID_ENTRIES, 256];

/// Gives the vCPU every feature that KVM can virtualize on this host. Once, before it first runs.
pub(crate) fn set_features(kvm: &Kvm, vcpu: &VcpuFd) -> Result<(), BackendError> {
    vcpu.set_cpuid2(&supported(kvm)?).map_err(refused("KVM_SET_CPUID2"))
}

fn supported(kvm: &Kvm) -> Result<CpuId, BackendError> {
    let [few, many] = CPUID_ENTRIES;
    let cpuid = match kvm.get_supported_cpuid(few) {
        Err(error) if errno(&error) == Errno::TOOBIG => kvm.get_supported_cpuid(many),
        other => other,
    };
    cpuid.map_err(refused("KVM_GET_SUPPORTED_CPUID"))
}

/// What KVM can virtualize on this host, as the core spells it.
pub(crate) fn supported_cpuid(kvm: &Kvm) -> Result<Vec<CpuidEntry>, BackendError> {
    let row = |entry: &kvm_cpuid_entry2| CpuidEntry {
        leaf: entry.function,
        subleaf: (entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0).then_some(entry.index),
        registers: [entry.eax, entry.ebx, entry.ecx, entry.edx],
    };
    Ok(supported(kvm)?.as_slice().iter().map(row).collect())
}

/// Gives the vCPU these rows. Once, before it first runs.
pub(crate) fn set_cpuid(vcpu: &VcpuFd, rows: &[CpuidEntry]) -> Result<(), BackendError> {
    let entry = |row: &CpuidEntry| kvm_cpuid_entry2 {
        function: row.leaf,
        index: row.subleaf.unwrap_or(0),
        flags: if row.subleaf.is_some() { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 },
        eax: row.registers[0],
        ebx: row.registers[1],
        ecx: row.registers[2],
        edx: row.registers[3],
        ..Default::default()
    };
    let entries: Vec<_> = rows.iter().map(entry).collect();
    let cpuid = CpuId::from_entries(&entries).map_err(|_| {
        BackendError::new(format!("{} rows of CPUID are more than KVM takes", rows.len()))
    })?;
    vcpu.set_cpuid2(&cpuid).map_err(refused("KVM_SET_CPUID2"))
}

/// The TSC's frequency as the guest sees it, in Hz.
pub(crate) fn cycle_frequency(vcpu: &VcpuFd) -> Result<u64, BackendError> {
    match vcpu.get_tsc_khz() {
        Ok(khz) if khz > 0 => Ok(u64::from(khz) * 1000),
        Err(error) if errno(&error) != Errno::IO => Err(refused("KVM_GET_TSC_KHZ")(error)),
        _ => Err(BackendError::new(
            "KVM: the host's TSC is unstable, so the guest would have no clock: use \
             --backend=sandbox, or boot the host with tsc=reliable if you know better",
        )),
    }
}

/// Puts the vCPU where `state` says.
pub(crate) fn set_state(vcpu: &VcpuFd, state: &VcpuState) -> Result<(), BackendError> {
    let VcpuState::X86(state) = state;
    vcpu.set_sregs(&sregs(state)).map_err(refused("KVM_SET_SREGS"))?;
    set_regs(vcpu, state)
}

/// The same for a vCPU with a local APIC, whose own registers stay as they are.
pub(crate) fn set_machine_state(vcpu: &VcpuFd, state: &VcpuState) -> Result<(), BackendError> {
    let VcpuState::X86(state) = state;
    let old = vcpu.get_sregs().map_err(refused("KVM_GET_SREGS"))?;
    let new = kvm_sregs { apic_base: old.apic_base, ..sregs(state) };
    vcpu.set_sregs(&new).map_err(refused("KVM_SET_SREGS"))?;
    set_regs(vcpu, state)
}

fn set_regs(vcpu: &VcpuFd, state: &X86State) -> Result<(), BackendError> {
    let regs = kvm_regs {
        rip: state.rip,
        rsp: state.rsp,
        rdi: state.rdi,
        rsi: state.rsi,
        rax: state.rax,
        rbx: state.rbx,
        rdx: state.rdx,
        // Bit 1 is always set (Intel SDM vol. 1 §3.4.3).
        rflags: state.rflags | 2,
        ..Default::default()
    };
    vcpu.set_regs(&regs).map_err(refused("KVM_SET_REGS"))
}

/// Whether these registers are what INIT leaves (AMD APM vol. 2 §14.1.3). No unikernel gets there
/// by itself: it has neither code at this address nor a way to it with these flags.
pub(crate) fn is_reset(regs: &kvm_regs) -> bool {
    regs.rip == 0xfff0 && regs.rflags == 2 && regs.rsp == 0
}

/// Whether the vCPU is in 64-bit code: long mode, and a code segment with L (AMD APM vol. 2 §14.1).
pub(crate) fn is_in_64_bit_code(vcpu: &VcpuFd) -> Result<bool, BackendError> {
    const LONG_MODE_ACTIVE: u64 = 1 << 10;
    let sregs = vcpu.get_sregs().map_err(refused("KVM_GET_SREGS"))?;
    Ok(sregs.efer & LONG_MODE_ACTIVE != 0 && sregs.cs.l != 0)
}

/// Gives the vCPU an exception at its next entry.
pub(crate) fn queue_exception(
    vcpu: &VcpuFd,
    vector: u8,
    error_code: Option<u32>,
) -> Result<(), BackendError> {
    let mut events = vcpu.get_vcpu_events().map_err(refused("KVM_GET_VCPU_EVENTS"))?;
    events.exception.injected = 1;
    events.exception.nr = vector;
    events.exception.has_error_code = u8::from(error_code.is_some());
    events.exception.error_code = error_code.unwrap_or(0);
    vcpu.set_vcpu_events(&events).map_err(refused("KVM_SET_VCPU_EVENTS"))
}

/// Puts the FPU where FNINIT and a reset of MXCSR leave it (Intel SDM vol. 1 §8.1.5, §10.2.3).
/// KVM makes a vCPU so; this is for one that has run.
pub(crate) fn reset_fpu(vcpu: &VcpuFd) -> Result<(), BackendError> {
    let fpu = kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..Default::default() };
    vcpu.set_fpu(&fpu).map_err(refused("KVM_SET_FPU"))
}

fn sregs(state: &X86State) -> kvm_sregs {
    let data = segment(&state.data);
    let table = |(base, limit)| kvm_dtable { base, limit, ..Default::default() };
    kvm_sregs {
        cr0: state.cr0,
        cr3: state.cr3,
        cr4: state.cr4,
        efer: state.efer,
        cs: segment(&state.cs),
        ss: data,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        tr: segment(&state.tr),
        ldt: segment(&Segment::default()),
        gdt: table(state.gdt),
        idt: table(state.idt),
        ..Default::default()
    }
}

/// A segment as KVM spells it. One without the present bit is unusable.
fn segment(from: &Segment) -> kvm_segment {
    let bit = |number: u32| u8::from(from.attributes & (1 << number) != 0);
    let bits = |at: u32, mask: u8| from.attributes.to_le_bytes()[0] >> at & mask;
    kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: bits(0, 0xf),
        s: bit(4),
        dpl: bits(5, 3),
        present: bit(7),
        avl: bit(8),
        l: bit(9),
        db: bit(10),
        g: bit(11),
        unusable: 1 - bit(7),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_become_kvms_fields() {
        // Code: G, L, present, DPL 3, S, execute-read accessed.
        let code = Segment { selector: 8, base: 1, limit: u32::MAX, attributes: 0xafb };
        let kvm = segment(&code);
        assert_eq!((kvm.type_, kvm.s, kvm.dpl, kvm.present), (0xb, 1, 3, 1));
        assert_eq!((kvm.avl, kvm.l, kvm.db, kvm.g, kvm.unusable), (0, 1, 0, 1, 0));
        // Data: G, D/B, AVL.
        let kvm = segment(&Segment { attributes: 0xd93, ..code });
        assert_eq!((kvm.avl, kvm.l, kvm.db, kvm.g), (1, 0, 1, 1));
        assert_eq!(segment(&Segment::default()).unusable, 1);
    }

    #[test]
    fn a_guest_that_ran_has_not_the_registers_of_a_reset() {
        let reset = kvm_regs { rip: 0xfff0, rflags: 2, rdx: 0xa20f12, ..Default::default() };
        assert!(is_reset(&reset));
        assert!(!is_reset(&kvm_regs { rip: 0x10_0000, ..reset }));
        assert!(!is_reset(&kvm_regs { rsp: 0x20_0000, ..reset }));
    }

    #[test]
    fn every_segment_of_the_state_arrives() {
        let data = Segment { selector: 16, base: 0, limit: 9, attributes: 0xc93 };
        let state = X86State { data, gdt: (0x1000, 23), cr3: 0x2000, ..Default::default() };
        let sregs = sregs(&state);
        for segment in [sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs] {
            assert_eq!((segment.selector, segment.limit), (16, 9));
        }
        assert_eq!((sregs.gdt.base, sregs.gdt.limit, sregs.cr3), (0x1000, 23, 0x2000));
        assert_eq!(sregs.ldt.unusable, 1);
    }
}
