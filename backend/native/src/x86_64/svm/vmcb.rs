//! The virtual machine control block: AMD APM vol. 2 (rev. 3.42), appendix B.
//!
//! Field names are the manual's. The processor reads and writes it only during VMRUN, VMLOAD and
//! VMSAVE, which happen while [`super::enter`] has it alone.

use core::mem::offset_of;
use hypervisor::vcpu::Segment;

/// A segment register in the state-save area.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seg {
    pub selector: u16,
    pub attrib: u16,
    pub limit: u32,
    pub base: u64,
}

impl From<Segment> for Seg {
    fn from(s: Segment) -> Self {
        Self { selector: s.selector, attrib: s.attributes, limit: s.limit, base: s.base }
    }
}

impl From<Seg> for Segment {
    fn from(s: Seg) -> Self {
        Self { selector: s.selector, base: s.base, limit: s.limit, attributes: s.attrib & 0xfff }
    }
}

/// The control area: table B-1.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Control {
    pub intercept_cr_read: u16,
    pub intercept_cr_write: u16,
    pub intercept_dr_read: u16,
    pub intercept_dr_write: u16,
    pub intercept_exceptions: u32,
    pub intercept_1: u32,
    pub intercept_2: u32,
    pub intercept_3: u32,
    _reserved_18: [u32; 9],
    pub pause_filter_threshold: u16,
    pub pause_filter_count: u16,
    pub iopm_base_pa: u64,
    pub msrpm_base_pa: u64,
    pub tsc_offset: u64,
    pub guest_asid: u32,
    pub tlb_control: u8,
    _reserved_5d: [u8; 3],
    pub v_intr: u64,
    pub interrupt_shadow: u64,
    pub exitcode: u64,
    pub exitinfo1: u64,
    pub exitinfo2: u64,
    pub exitintinfo: u64,
    pub np_enable: u64,
    _avic_and_ghcb: [u64; 2],
    pub eventinj: u64,
    pub n_cr3: u64,
    pub lbr_virtualization: u64,
    pub vmcb_clean: u32,
    _reserved_c4: u32,
    pub nrip: u64,
    pub fetched: u8,
    pub instruction: [u8; 15],
    _reserved_e0: [u8; 0x320],
}

/// The state-save area: table B-2.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Save {
    pub es: Seg,
    pub cs: Seg,
    pub ss: Seg,
    pub ds: Seg,
    pub fs: Seg,
    pub gs: Seg,
    pub gdtr: Seg,
    pub ldtr: Seg,
    pub idtr: Seg,
    pub tr: Seg,
    _reserved_a0: [u8; 0x2b],
    pub cpl: u8,
    _reserved_cc: u32,
    pub efer: u64,
    _reserved_d8: [u8; 0x70],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    _reserved_180: [u8; 0x58],
    pub rsp: u64,
    _cet: [u64; 3],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    _reserved_248: [u64; 4],
    pub g_pat: u64,
    pub dbgctl: u64,
    _reserved_278: [u8; 0x988],
}

/// A whole one: a page.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct Vmcb {
    pub control: Control,
    pub save: Save,
}

const _: () = {
    assert!(offset_of!(Control, pause_filter_count) == 0x3e);
    assert!(offset_of!(Control, iopm_base_pa) == 0x40);
    assert!(offset_of!(Control, tlb_control) == 0x5c);
    assert!(offset_of!(Control, v_intr) == 0x60);
    assert!(offset_of!(Control, exitintinfo) == 0x88);
    assert!(offset_of!(Control, eventinj) == 0xa8);
    assert!(offset_of!(Control, nrip) == 0xc8);
    assert!(offset_of!(Control, instruction) == 0xd1);
    assert!(offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(Save, cpl) == 0xcb);
    assert!(offset_of!(Save, efer) == 0xd0);
    assert!(offset_of!(Save, cr4) == 0x148);
    assert!(offset_of!(Save, rip) == 0x178);
    assert!(offset_of!(Save, rsp) == 0x1d8);
    assert!(offset_of!(Save, rax) == 0x1f8);
    assert!(offset_of!(Save, cr2) == 0x240);
    assert!(offset_of!(Save, g_pat) == 0x268);
    assert!(size_of::<Vmcb>() == 4096);
};

bitflags::bitflags! {
    /// The intercepts at offset 0x0c.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Intercept1: u32 {
        const INTR = 1 << 0;
        const NMI = 1 << 1;
        const SMI = 1 << 2;
        const INIT = 1 << 3;
        const VINTR = 1 << 4;
        const RDPMC = 1 << 15;
        const CPUID = 1 << 18;
        const RSM = 1 << 19;
        const IRET = 1 << 20;
        const INVD = 1 << 22;
        const PAUSE = 1 << 23;
        const HLT = 1 << 24;
        const INVLPGA = 1 << 26;
        const IOIO_PROT = 1 << 27;
        const MSR_PROT = 1 << 28;
        const FERR_FREEZE = 1 << 30;
        const SHUTDOWN = 1 << 31;
    }

    /// The intercepts at offset 0x10.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Intercept2: u32 {
        const VMRUN = 1 << 0;
        const VMMCALL = 1 << 1;
        const VMLOAD = 1 << 2;
        const VMSAVE = 1 << 3;
        const STGI = 1 << 4;
        const CLGI = 1 << 5;
        const SKINIT = 1 << 6;
        const WBINVD = 1 << 9;
        const MONITOR = 1 << 10;
        const MWAIT = 1 << 11;
        const XSETBV = 1 << 13;
        const RDPRU = 1 << 14;
    }
}

/// V_INTR at offset 0x60.
pub(crate) mod v_intr {
    /// A virtual interrupt waits.
    pub const V_IRQ: u64 = 1 << 8;
    /// With the highest priority.
    pub const V_INTR_PRIO: u64 = 0xf << 16;
    /// Whatever V_TPR says.
    pub const V_IGN_TPR: u64 = 1 << 20;
    /// RFLAGS.IF of the guest masks virtual interrupts only, and CR8 is V_TPR.
    pub const V_INTR_MASKING: u64 = 1 << 24;
    /// CR8.
    pub const V_TPR: u64 = 0xf;
}

/// TLB_CONTROL at offset 0x5c.
pub(crate) mod tlb_control {
    pub const NOTHING: u8 = 0;
    /// Everything, of all ASIDs.
    pub const ALL: u8 = 1;
}

/// Exit codes: appendix C.
pub(crate) mod exit {
    pub const CR4_WRITE: u64 = 0x14;
    pub const CR8_WRITE: u64 = 0x18;
    pub const DR_FIRST: u64 = 0x20;
    pub const DR_LAST: u64 = 0x3f;
    pub const EXCEPTION_DB: u64 = 0x41;
    pub const EXCEPTION_AC: u64 = 0x51;
    pub const EXCEPTION_MC: u64 = 0x52;
    pub const INTR: u64 = 0x60;
    pub const NMI: u64 = 0x61;
    pub const SMI: u64 = 0x62;
    pub const INIT: u64 = 0x63;
    pub const VINTR: u64 = 0x64;
    pub const RDPMC: u64 = 0x6f;
    pub const CPUID: u64 = 0x72;
    pub const RSM: u64 = 0x73;
    pub const IRET: u64 = 0x74;
    pub const INVD: u64 = 0x76;
    pub const PAUSE: u64 = 0x77;
    pub const HLT: u64 = 0x78;
    pub const INVLPGA: u64 = 0x7a;
    pub const IOIO: u64 = 0x7b;
    pub const MSR: u64 = 0x7c;
    pub const SHUTDOWN: u64 = 0x7f;
    pub const VMRUN: u64 = 0x80;
    pub const VMMCALL: u64 = 0x81;
    pub const VMLOAD: u64 = 0x82;
    pub const SKINIT: u64 = 0x86;
    pub const WBINVD: u64 = 0x89;
    pub const MONITOR: u64 = 0x8a;
    pub const MWAIT_CONDITIONAL: u64 = 0x8c;
    pub const XSETBV: u64 = 0x8d;
    pub const RDPRU: u64 = 0x8e;
    pub const NPF: u64 = 0x400;
    pub const BUSY: u64 = u64::MAX - 1;
    pub const INVALID: u64 = u64::MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_survive_the_way_there_and_back() {
        let segment = Segment { selector: 8, base: 1 << 40, limit: 0xfffff, attributes: 0xa9b };
        assert_eq!(Segment::from(Seg::from(segment)), segment);
    }
}
