//! Debugging a vCPU through `KVM_SET_GUEST_DEBUG` (KVM API §4.87) and the debug registers
//! (Intel SDM vol. 3 §17.2). The guest's own debug registers are not in force meanwhile.
//!
//! A software breakpoint is a HLT, not an INT3: it leaves the guest on every processor (QEMU's
//! emulated SVM does not intercept the #BP of an INT3), and the guest's own INT3 stays the
//! guest's. It needs a guest in ring 0, as unikernels are; in ring 3 it would be a #GP.

use crate::KvmVcpu;
use crate::error::refused;
use crate::machine::PAGE;
use crate::vcpu::Stop as RunStop;
use hypervisor::debug::{
    BreakKind, Breakpoint, DebugVcpu, HARDWARE_BREAKPOINTS, Registers, Stop, X86Registers,
};
use hypervisor::memory::{Gpa, GuestMemory, Gva, MemoryError};
use hypervisor::vcpu::{BackendError, VmEntry, VmExit};
use kvm_bindings::*;

const HLT: u8 = 0xf4;
/// DR6: a single step.
const DR6_BS: u64 = 1 << 14;
/// DR7: exact breakpoints, and the bit that is always set.
const DR7_FIXED: u64 = 1 << 8 | 1 << 9 | 1 << 10;
/// Software breakpoints at once.
const SOFTWARE_BREAKPOINTS: usize = 4096;

/// The breakpoints of a vCPU, and what KVM has been told of them.
#[derive(Default)]
pub(crate) struct DebugState {
    hardware: [Option<Breakpoint>; HARDWARE_BREAKPOINTS],
    /// With the byte that the breakpoint instruction has replaced, and where that is.
    software: Vec<(Breakpoint, Gpa, u8)>,
    told: Option<kvm_guest_debug>,
    /// The guest's last instruction has exited, and KVM ends it at the next entry.
    exited: bool,
}

impl DebugState {
    fn request(&self, step: bool) -> kvm_guest_debug {
        let mut debug = kvm_guest_debug {
            control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
            ..Default::default()
        };
        if step {
            debug.control |= KVM_GUESTDBG_SINGLESTEP;
        }
        let mut dr7 = DR7_FIXED;
        for (index, slot) in self.hardware.iter().enumerate() {
            if let Some((at, bits)) = slot.and_then(|at| Some((at, at.dr7_condition()?))) {
                debug.arch.debugreg[index] = at.address.0;
                dr7 |= 1 << (2 * index) | bits << (16 + 4 * index);
            }
        }
        debug.arch.debugreg[7] = dr7;
        debug
    }
}

impl DebugVcpu for KvmVcpu {
    fn detach(&mut self) -> Result<(), BackendError> {
        while let Some(&(breakpoint, ..)) = self.debug.software.last() {
            self.remove_software(breakpoint)?;
        }
        self.debug = DebugState::default();
        let off = kvm_guest_debug::default();
        self.fd.set_guest_debug(&off).map_err(refused("KVM_SET_GUEST_DEBUG"))
    }

    fn resume(&mut self, entry: VmEntry, step: bool) -> Result<Stop, BackendError> {
        let ends = std::mem::take(&mut self.debug.exited);
        let stop = if ends && step {
            self.end_instruction(entry)?
        } else {
            match self.debug.at(self.rip()?.0).filter(|_| !ends) {
                Some(breakpoint) => self.step_over(breakpoint, entry, step)?,
                None => self.advance(entry, step)?,
            }
        };
        self.debug.exited =
            !matches!(stop, Stop::Exit(VmExit::Interrupted)) && matches!(stop, Stop::Exit(_));
        Ok(stop)
    }

    fn registers(&self) -> Result<Registers, BackendError> {
        let regs = self.fd.get_regs().map_err(refused("KVM_GET_REGS"))?;
        let sregs = self.fd.get_sregs().map_err(refused("KVM_GET_SREGS"))?;
        let fpu = self.fd.get_fpu().map_err(refused("KVM_GET_FPU"))?;
        Ok(Registers::X86(from_kvm(&regs, &sregs, &fpu)))
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), BackendError> {
        let Registers::X86(new) = registers;
        let mut sregs = self.fd.get_sregs().map_err(refused("KVM_GET_SREGS"))?;
        sregs.fs.base = new.fs_base;
        sregs.gs.base = new.gs_base;
        let mut fpu = self.fd.get_fpu().map_err(refused("KVM_GET_FPU"))?;
        to_kvm_fpu(new, &mut fpu);
        self.fd.set_sregs(&sregs).map_err(refused("KVM_SET_SREGS"))?;
        self.fd.set_fpu(&fpu).map_err(refused("KVM_SET_FPU"))?;
        self.fd.set_regs(&to_kvm_regs(new)).map_err(refused("KVM_SET_REGS"))
    }

    fn insert(&mut self, breakpoint: Breakpoint) -> Result<bool, BackendError> {
        if breakpoint.kind == BreakKind::Software {
            return self.insert_software(breakpoint);
        }
        if self.debug.hardware.contains(&Some(breakpoint)) {
            return Ok(true);
        }
        let free = self.debug.hardware.iter_mut().find(|slot| slot.is_none());
        let Some(free) = free.filter(|_| breakpoint.dr7_condition().is_some()) else {
            return Ok(false);
        };
        *free = Some(breakpoint);
        Ok(true)
    }

    fn remove(&mut self, breakpoint: Breakpoint) -> Result<bool, BackendError> {
        if breakpoint.kind == BreakKind::Software {
            return self.remove_software(breakpoint);
        }
        let slot = self.debug.hardware.iter_mut().find(|slot| **slot == Some(breakpoint));
        Ok(slot.map(|slot| *slot = None).is_some())
    }

    fn translate(&self, address: Gva) -> Result<Option<Gpa>, BackendError> {
        let found = self.fd.translate_gva(address.0).map_err(refused("KVM_TRANSLATE"))?;
        Ok((found.valid != 0).then_some(Gpa(found.physical_address)))
    }

    fn poke(&mut self, at: Gpa, bytes: &[u8]) -> Result<(), BackendError> {
        let mut shown = bytes.to_vec();
        self.debug.hidden(at, &mut shown, |byte, _| *byte = HLT);
        self.write_ram(at, &shown)?;
        shown.copy_from_slice(bytes);
        self.debug.hidden(at, &mut shown, |byte, original| *original = *byte);
        Ok(())
    }

    fn peek(&self, memory: &GuestMemory, at: Gpa, to: &mut [u8]) -> Result<(), MemoryError> {
        memory.read_bytes(at, to)?;
        for (_, gpa, original) in &self.debug.software {
            if let Some(byte) = offset(at, *gpa).and_then(|index| to.get_mut(index)) {
                *byte = *original;
            }
        }
        Ok(())
    }
}

/// How far `at` is from `start`.
fn offset(start: Gpa, at: Gpa) -> Option<usize> {
    usize::try_from(at.0.checked_sub(start.0)?).ok()
}

impl KvmVcpu {
    fn write_ram(&mut self, at: Gpa, bytes: &[u8]) -> Result<(), BackendError> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let here = at.checked_add(done as u64);
            let here = here.ok_or_else(|| BackendError::new("the address wraps around"))?;
            let in_page = usize::try_from(PAGE - here.0 % PAGE).unwrap_or(1).min(rest.len());
            let perms = self.memory.perms_at(here).ok_or_else(|| {
                BackendError::new(format!("there is no memory at guest address {here:#x}"))
            })?;
            self.machine.ram().poke(here.0, &rest[..in_page], perms)?;
            done += in_page;
        }
        Ok(())
    }
}

impl DebugState {
    /// The breakpoint in front of the instruction at an address.
    fn at(&self, address: u64) -> Option<Breakpoint> {
        let software = self.software.iter().map(|(at, ..)| *at);
        let hardware = self.hardware.iter().flatten().copied();
        let hardware = hardware.filter(|at| at.kind == BreakKind::Hardware);
        software.chain(hardware).find(|at| at.address.0 == address)
    }

    /// Calls `f` with each of the bytes at `start` that a breakpoint hides, and what it hides.
    fn hidden(&mut self, start: Gpa, bytes: &mut [u8], mut f: impl FnMut(&mut u8, &mut u8)) {
        for (_, gpa, original) in &mut self.software {
            if let Some(byte) = offset(start, *gpa).and_then(|index| bytes.get_mut(index)) {
                f(byte, original);
            }
        }
    }

    fn stop(&self, what: &kvm_debug_exit_arch) -> Stop {
        let stepped = what.dr6 & DR6_BS != 0;
        (0..HARDWARE_BREAKPOINTS)
            .filter(|index| what.dr6 & 1 << index != 0)
            .filter_map(|index| self.hardware[index])
            // After a step, only what the stepped instruction did counts.
            .find(|at| !stepped || at.kind != BreakKind::Hardware)
            .map_or(Stop::Step, Stop::Breakpoint)
    }

    /// The software breakpoint whose HLT ends at `rip`.
    fn before(&self, rip: u64) -> Option<Breakpoint> {
        let address = Gva(rip.checked_sub(1)?);
        let found = self.software.iter().find(|(at, ..)| at.address == address);
        found.map(|(at, ..)| *at)
    }
}

impl KvmVcpu {
    /// Runs with the breakpoints that are set.
    fn advance(&mut self, entry: VmEntry, step: bool) -> Result<Stop, BackendError> {
        let request = self.debug.request(step);
        if self.debug.told != Some(request) {
            self.fd.set_guest_debug(&request).map_err(refused("KVM_SET_GUEST_DEBUG"))?;
            self.debug.told = Some(request);
        }
        Ok(match self.go(entry)? {
            RunStop::Exit(VmExit::Halt) => self.halted()?,
            RunStop::Exit(exit) => Stop::Exit(exit),
            RunStop::Debug(what) => self.debug.stop(&what),
        })
    }

    /// Lets KVM end an instruction that has exited, and nothing more: it does so at the next
    /// entry, even at one that comes back at once (KVM API §5, `immediate_exit`).
    fn end_instruction(&mut self, entry: VmEntry) -> Result<Stop, BackendError> {
        self.fd.set_kvm_immediate_exit(1);
        Ok(match self.advance(entry, true)? {
            Stop::Exit(VmExit::Interrupted) => Stop::Step,
            other => other,
        })
    }

    /// Executes the instruction under a breakpoint, and goes on from there.
    fn step_over(
        &mut self,
        breakpoint: Breakpoint,
        entry: VmEntry,
        step: bool,
    ) -> Result<Stop, BackendError> {
        self.remove(breakpoint)?;
        let stop = self.advance(entry, true)?;
        self.insert(breakpoint)?;
        if stop == Stop::Step && !step { self.advance(VmEntry::Continue, false) } else { Ok(stop) }
    }

    /// After a HLT: the guest's own, or a breakpoint, to which it then goes back.
    fn halted(&mut self) -> Result<Stop, BackendError> {
        let mut regs = self.fd.get_regs().map_err(refused("KVM_GET_REGS"))?;
        let Some(breakpoint) = self.debug.before(regs.rip) else {
            return Ok(Stop::Exit(VmExit::Halt));
        };
        regs.rip = breakpoint.address.0;
        self.fd.set_regs(&regs).map_err(refused("KVM_SET_REGS"))?;
        Ok(Stop::Breakpoint(breakpoint))
    }

    fn insert_software(&mut self, breakpoint: Breakpoint) -> Result<bool, BackendError> {
        if self.debug.software.iter().any(|(at, ..)| *at == breakpoint) {
            return Ok(true);
        }
        let Some(gpa) = self.translate(breakpoint.address)? else { return Ok(false) };
        let readable = self.memory.perms_at(gpa).is_some_and(|perms| !perms.is_empty());
        if !readable || self.debug.software.len() >= SOFTWARE_BREAKPOINTS {
            return Ok(false);
        }
        let Some(original) = self.machine.ram().text_byte(gpa.0) else { return Ok(false) };
        self.write_ram(gpa, &[HLT])?;
        self.debug.software.push((breakpoint, gpa, original));
        Ok(true)
    }

    fn remove_software(&mut self, breakpoint: Breakpoint) -> Result<bool, BackendError> {
        let found = self.debug.software.iter().position(|(at, ..)| *at == breakpoint);
        let Some(index) = found else { return Ok(false) };
        let (_, gpa, original) = self.debug.software.swap_remove(index);
        self.write_ram(gpa, &[original])?;
        Ok(true)
    }
}

fn from_kvm(regs: &kvm_regs, sregs: &kvm_sregs, fpu: &kvm_fpu) -> X86Registers {
    let r = regs;
    let segments = [sregs.cs, sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs];
    let mut x87 = [[0; 10]; 8];
    for (to, from) in x87.iter_mut().zip(&fpu.fpr) {
        to.copy_from_slice(&from[..10]);
    }
    X86Registers {
        general: [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15,
        ],
        rip: r.rip,
        rflags: r.rflags,
        segments: segments.map(|segment| segment.selector),
        fs_base: sregs.fs.base,
        gs_base: sregs.gs.base,
        x87,
        fcw: fpu.fcw,
        fsw: fpu.fsw,
        xmm: fpu.xmm,
        mxcsr: fpu.mxcsr,
    }
}

fn to_kvm_regs(new: &X86Registers) -> kvm_regs {
    let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15] =
        new.general;
    let (rip, rflags) = (new.rip, new.rflags);
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    }
}

fn to_kvm_fpu(new: &X86Registers, fpu: &mut kvm_fpu) {
    for (to, from) in fpu.fpr.iter_mut().zip(&new.x87) {
        to[..10].copy_from_slice(from);
    }
    (fpu.fcw, fpu.fsw, fpu.mxcsr, fpu.xmm) = (new.fcw, new.fsw, new.mxcsr, new.xmm);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(kind: BreakKind, address: u64) -> Breakpoint {
        Breakpoint { kind, address: Gva(address) }
    }

    #[test]
    fn conditions_are_those_of_dr7() {
        assert_eq!(at(BreakKind::Hardware, 0x1001).dr7_condition(), Some(0));
        assert_eq!(at(BreakKind::Write { len: 4 }, 0x1004).dr7_condition(), Some(0b1101));
        assert_eq!(at(BreakKind::Access { len: 8 }, 0x1008).dr7_condition(), Some(0b1011));
        assert_eq!(at(BreakKind::Access { len: 8 }, 0x1004).dr7_condition(), None);
        assert_eq!(at(BreakKind::Write { len: 3 }, 0x1002).dr7_condition(), None);
        assert_eq!(at(BreakKind::Write { len: 0 }, 0).dr7_condition(), None);
    }

    #[test]
    fn dr7_has_a_field_per_breakpoint() {
        let mut state = DebugState::default();
        state.hardware[1] = Some(at(BreakKind::Write { len: 2 }, 0x2002));
        let request = state.request(true);
        assert_eq!(request.arch.debugreg[1], 0x2002);
        assert_eq!(request.arch.debugreg[7], DR7_FIXED | 1 << 2 | 0b0101 << 20);
        assert_ne!(request.control & KVM_GUESTDBG_SINGLESTEP, 0);
        assert_eq!(state.request(false).control & KVM_GUESTDBG_SINGLESTEP, 0);
    }

    #[test]
    fn stops_are_told_apart() {
        let mut state = DebugState::default();
        let (soft, hard) = (at(BreakKind::Software, 0x10), at(BreakKind::Hardware, 0x20));
        state.software.push((soft, Gpa(0x10), 0));
        state.hardware[2] = Some(hard);
        let stop = |dr6| state.stop(&kvm_debug_exit_arch { dr6, ..Default::default() });
        assert_eq!(stop(1 << 2), Stop::Breakpoint(hard));
        assert_eq!(stop(1 << 1), Stop::Step);
        assert_eq!(stop(DR6_BS | 1 << 2), Stop::Step);
        assert_eq!(state.before(0x11), Some(soft));
        assert_eq!(state.before(0x10), None);
        assert_eq!(state.before(0), None);
    }

    #[test]
    fn registers_survive_the_way_there_and_back() {
        let mut regs = kvm_regs { rip: 17, rflags: 2, ..Default::default() };
        (regs.rax, regs.rbp, regs.rsp, regs.r15) = (1, 7, 8, 16);
        let shown = from_kvm(&regs, &kvm_sregs::default(), &kvm_fpu::default());
        assert_eq!((shown.general[0], shown.general[6], shown.general[7]), (1, 7, 8));
        assert_eq!(to_kvm_regs(&shown), regs);
    }
}
