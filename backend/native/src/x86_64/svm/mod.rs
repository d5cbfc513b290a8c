//! AMD SVM: AMD APM vol. 2, chapter 15.
//!
//! Order on each CPU: [`Svm::enable`] once, then guests.

#![allow(unsafe_code)]

mod asid;
#[cfg(any(test, feature = "audit"))]
mod audit;
mod block;
mod clean;
#[cfg(not(test))]
mod enter;
#[cfg(test)]
#[path = "scripted.rs"]
mod enter;
mod event;
mod features;
mod maps;
mod ratio;
mod reason;
#[cfg(test)]
mod tests;
mod vmcb;

pub(crate) use asid::Asids;
pub(crate) use features::find;
pub(crate) use ratio::TscRatio;

use super::cpu::Cpu;
use super::decode::Seg;
use super::memory::Npt;
use super::processor::{rdmsr, wrmsr};
use super::regs::Gprs;
use super::tsc::Ratio;
use super::vendor::{Injection, Reason, Vendor};
use crate::{HostPhys, Platform};
use alloc::sync::Arc;
use asid::Asid;
use block::Block;
use features::Features;
use hypervisor::vcpu::{BackendError, Segment, X86State};
use maps::Maps;
use vmcb::{Intercept1, Intercept2, tlb_control, v_intr};

const EFER: u32 = 0xc000_0080;
const EFER_SVME: u64 = 1 << 12;
const VM_HSAVE_PA: u32 = 0xc001_0117;
/// PAT after a reset.
const PAT: u64 = 0x0007_0406_0007_0406;
/// DR6 and DR7 after a reset.
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;

/// What leaves every guest.
const ALWAYS_1: Intercept1 = Intercept1::INTR
    .union(Intercept1::NMI)
    .union(Intercept1::SMI)
    .union(Intercept1::INIT)
    .union(Intercept1::RDPMC)
    .union(Intercept1::CPUID)
    .union(Intercept1::RSM)
    .union(Intercept1::INVD)
    .union(Intercept1::HLT)
    .union(Intercept1::INVLPGA)
    .union(Intercept1::IOIO_PROT)
    .union(Intercept1::MSR_PROT)
    .union(Intercept1::FERR_FREEZE)
    .union(Intercept1::SHUTDOWN);
const ALWAYS_2: Intercept2 = Intercept2::VMRUN
    .union(Intercept2::VMMCALL)
    .union(Intercept2::VMLOAD)
    .union(Intercept2::VMSAVE)
    .union(Intercept2::STGI)
    .union(Intercept2::CLGI)
    .union(Intercept2::SKINIT)
    .union(Intercept2::WBINVD)
    .union(Intercept2::MONITOR)
    .union(Intercept2::MWAIT)
    .union(Intercept2::XSETBV)
    .union(Intercept2::RDPRU);
/// Writes to CR4 and CR8.
const CR_WRITES: u16 = 1 << 4 | 1 << 8;
/// #DB and #AC may come again and again while they are delivered, without end (CVE-2015-8104,
/// CVE-2015-5307); #MC is the host's.
const EXCEPTIONS: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// What all vCPUs share.
pub(crate) struct Shared<P: Platform> {
    platform: &'static P,
    features: Features,
    maps: Maps<P>,
}

impl<P: Platform> Shared<P> {
    /// For a processor with these features; `None` where there is no memory.
    pub fn new(platform: &'static P, features: Features) -> Option<Self> {
        Some(Self { platform, features, maps: Maps::new(platform)? })
    }
}

/// A vCPU's VMCB and what belongs to it.
pub(crate) struct Svm<P: Platform> {
    shared: Arc<Shared<P>>,
    at: HostPhys,
    vmcb: Block,
    asid: Asid,
}

impl<P: Platform> Svm<P> {
    fn intercept_1(&mut self, what: Intercept1, wanted: bool) {
        let mut set = Intercept1::from_bits_retain(self.vmcb.control.intercept_1);
        set.set(what, wanted);
        self.vmcb.set_intercept_1(set.bits());
    }

    #[cold]
    fn renew_asid(&mut self, cpu: &mut Cpu) {
        let count = self.shared.features.asids;
        let flush = cpu.asids.renew(&mut self.asid, cpu.number, count);
        self.vmcb.set_guest_asid(self.asid.number);
        if flush {
            self.vmcb.set_tlb_control(tlb_control::ALL);
        }
    }

    fn new_control(&mut self, root: HostPhys) {
        let (io, msr) = (self.shared.maps.io, self.shared.maps.msr);
        let control = &mut self.vmcb.rewrite().control;
        control.intercept_cr_write = CR_WRITES;
        control.intercept_exceptions = EXCEPTIONS;
        control.intercept_1 = ALWAYS_1.bits();
        control.intercept_2 = ALWAYS_2.bits();
        control.iopm_base_pa = io.0;
        control.msrpm_base_pa = msr.0;
        control.v_intr = v_intr::V_INTR_MASKING;
        control.np_enable = 1;
        control.n_cr3 = root.0;
    }
}

impl<P: Platform> Drop for Svm<P> {
    fn drop(&mut self) {
        // SAFETY: from `new`; the processor has no VMCB in use between two runs.
        unsafe { self.shared.platform.free(self.at, 0) };
    }
}

impl<P: Platform> Vendor<P> for Svm<P> {
    type Tables = Npt;
    type Shared = Shared<P>;

    fn new(shared: &Arc<Shared<P>>, root: HostPhys) -> Option<Self> {
        let at = shared.platform.alloc(0)?;
        // SAFETY: a frame of zeros, freed with this vCPU.
        let vmcb = unsafe { Block::new(shared.platform.virt(at).cast()) };
        let mut svm = Self { shared: shared.clone(), at, vmcb, asid: Asid::default() };
        svm.new_control(root);
        Some(svm)
    }

    fn scales_tsc(shared: &Shared<P>) -> bool {
        shared.features.tsc_rate
    }

    fn largest_leaf(shared: &Shared<P>) -> u8 {
        if shared.features.page_1gb { 18 } else { 9 }
    }

    fn enable(shared: &Shared<P>, cpu: &mut Cpu) -> bool {
        let frame = || shared.platform.cpu_frame();
        let (Some(save), Some(host)) = (frame(), frame()) else {
            return false;
        };
        cpu.host_vmcb = host;
        cpu.has_tsc_aux = shared.features.rdtscp;
        cpu.has_ibpb = shared.features.ibpb;
        // SAFETY: `find` has seen that there is SVM and that it is not turned off; the save area
        // is this CPU's for ever.
        unsafe {
            wrmsr(EFER, rdmsr(EFER) | EFER_SVME);
            wrmsr(VM_HSAVE_PA, save.0);
        }
        true
    }

    fn reset(&mut self, state: &X86State) {
        self.asid.forget();
        self.set_debug_exits(true);
        self.set_window(false);
        self.set_nmi_end(false);
        let vmcb = self.vmcb.rewrite();
        vmcb.control.eventinj = 0;
        vmcb.control.exitintinfo = 0;
        vmcb.control.interrupt_shadow = 0;
        vmcb.control.v_intr &= !v_intr::V_TPR;
        let save = &mut vmcb.save;
        let data = state.data.into();
        (save.es, save.ss, save.ds, save.fs, save.gs) = (data, data, data, data, data);
        save.cs = state.cs.into();
        save.tr = state.tr.into();
        // Present, of the right type, and empty.
        save.ldtr = Segment { limit: 0xffff, attributes: 0x82, ..Segment::default() }.into();
        for (table, (base, limit)) in [(&mut save.gdtr, state.gdt), (&mut save.idtr, state.idt)] {
            (table.base, table.limit) = (base, limit.into());
        }
        save.cpl = (state.data.attributes >> 5 & 3).to_le_bytes()[0];
        (save.cr0, save.cr2, save.cr3, save.cr4) = (state.cr0, 0, state.cr3, state.cr4);
        save.efer = state.efer | EFER_SVME;
        (save.rip, save.rsp, save.rflags) = (state.rip, state.rsp, state.rflags | 2);
        (save.dr6, save.dr7, save.dbgctl, save.g_pat) = (DR6, DR7, 0, PAT);
        (save.star, save.lstar, save.cstar, save.sfmask) = (0, 0, 0, 0);
        (save.kernel_gs_base, save.sysenter_cs) = (0, 0);
        (save.sysenter_esp, save.sysenter_eip) = (0, 0);
    }

    unsafe fn arrive(&mut self, cpu: &mut Cpu, tsc: Ratio) {
        self.vmcb.dirty();
        if !cpu.asids.has(&self.asid, cpu.number) {
            self.asid.forget();
        }
        if self.shared.features.tsc_rate {
            // SAFETY: there is the register, and the CPU is this one, as the caller promises.
            unsafe { cpu.tsc_ratio.load(tsc) };
        }
        if !core::mem::replace(&mut cpu.host_saved, true) {
            // SAFETY: enabled, as the caller promises.
            unsafe { enter::save_host(cpu.host_vmcb.0) };
        }
    }

    #[inline(always)]
    unsafe fn enter(&mut self, cpu: &mut Cpu, gprs: &mut Gprs) {
        if self.asid.is_forgotten() {
            self.renew_asid(cpu);
        }
        let at = self.at.0;
        self.vmcb.set_rax_rsp([gprs.0[Gprs::RAX], gprs.0[Gprs::RSP]]);
        #[cfg(any(test, feature = "audit"))]
        self.vmcb.audit_entry(cpu.number, cpu.last_vmcb);
        // SAFETY: enabled; a VMCB of ours; the host's state is saved; interrupts are off.
        unsafe { enter::enter(at, gprs, cpu.host_vmcb.0) };
        [gprs.0[Gprs::RAX], gprs.0[Gprs::RSP]] = self.vmcb.ran();
        #[cfg(any(test, feature = "audit"))]
        {
            cpu.last_vmcb = self.vmcb.audit_exit(cpu.number);
        }
    }

    #[inline]
    fn interrupted(&mut self) -> Option<Injection> {
        event::interrupted(self.vmcb.control.exitintinfo)
    }

    #[inline(always)]
    fn reason(&mut self) -> Reason {
        reason::reason(&self.vmcb.control, &self.vmcb.save)
    }

    fn describe(&self, reason: Reason) -> BackendError {
        reason::describe(reason, &self.vmcb)
    }

    fn inject(&mut self, event: Injection) {
        self.vmcb.set_eventinj(event::encode(event));
    }

    fn next_rip(&self) -> Option<u64> {
        self.shared.features.nrip_save.then(|| self.vmcb.control.nrip)
    }

    fn instruction(&self) -> Option<&[u8]> {
        let control = &self.vmcb.control;
        let bytes = control.instruction.get(..usize::from(control.fetched))?;
        (self.shared.features.decode_assists && !bytes.is_empty()).then_some(bytes)
    }

    fn rip(&self) -> u64 {
        self.vmcb.save.rip
    }

    fn set_rip(&mut self, value: u64) {
        self.vmcb.set_rip(value);
    }

    fn rflags(&self) -> u64 {
        self.vmcb.save.rflags
    }

    fn set_rflags(&mut self, value: u64) {
        self.vmcb.set_rflags(value);
    }

    fn cr0(&self) -> u64 {
        self.vmcb.save.cr0
    }

    fn cr3(&self) -> u64 {
        self.vmcb.save.cr3
    }

    fn cr4(&self) -> u64 {
        self.vmcb.save.cr4
    }

    fn set_cr4(&mut self, value: u64) {
        self.vmcb.set_cr4(value);
    }

    fn set_cr2(&mut self, value: u64) {
        self.vmcb.set_cr2(value);
    }

    /// VMRUN wants SVME set; the guest never sees it.
    fn efer(&self) -> u64 {
        self.vmcb.save.efer & !EFER_SVME
    }

    fn set_efer(&mut self, value: u64) {
        self.vmcb.set_efer(value | EFER_SVME);
    }

    fn pat(&self) -> u64 {
        self.vmcb.save.g_pat
    }

    fn set_pat(&mut self, value: u64) {
        self.vmcb.set_g_pat(value);
    }

    fn dr6(&self) -> u64 {
        self.vmcb.save.dr6
    }

    fn set_dr6(&mut self, value: u64) {
        self.vmcb.set_dr6(value);
    }

    fn dr7(&self) -> u64 {
        self.vmcb.save.dr7
    }

    fn cpl(&self) -> u8 {
        self.vmcb.save.cpl
    }

    fn segment(&self, which: Seg) -> Segment {
        let save = &self.vmcb.save;
        let seg = match which {
            Seg::Es => save.es,
            Seg::Cs => save.cs,
            Seg::Ss => save.ss,
            Seg::Ds => save.ds,
            Seg::Fs => save.fs,
            Seg::Gs => save.gs,
        };
        seg.into()
    }

    fn task_priority(&self) -> u8 {
        (self.vmcb.control.v_intr & v_intr::V_TPR).to_le_bytes()[0]
    }

    fn set_task_priority(&mut self, value: u8) {
        let rest = self.vmcb.control.v_intr & !v_intr::V_TPR;
        self.vmcb.set_v_intr(rest | u64::from(value) & v_intr::V_TPR);
    }

    fn tsc_offset(&self) -> u64 {
        self.vmcb.control.tsc_offset
    }

    fn set_tsc_offset(&mut self, value: u64) {
        self.vmcb.set_tsc_offset(value);
    }

    fn shadow(&self) -> bool {
        self.vmcb.control.interrupt_shadow & 1 != 0
    }

    fn clear_shadow(&mut self) {
        self.vmcb.clear_interrupt_shadow();
    }

    fn set_window(&mut self, wanted: bool) {
        const REQUEST: u64 = v_intr::V_IRQ | v_intr::V_INTR_PRIO | v_intr::V_IGN_TPR;
        self.intercept_1(Intercept1::VINTR, wanted);
        let field = self.vmcb.control.v_intr;
        self.vmcb.set_v_intr(if wanted { field | REQUEST } else { field & !REQUEST });
    }

    fn set_nmi_end(&mut self, wanted: bool) {
        self.intercept_1(Intercept1::IRET, wanted);
    }

    fn set_debug_exits(&mut self, wanted: bool) {
        let mask = if wanted { u16::MAX } else { 0 };
        self.vmcb.set_intercept_dr_read(mask);
        self.vmcb.set_intercept_dr_write(mask);
    }

    fn flush(&mut self) {
        self.asid.forget();
    }
}
