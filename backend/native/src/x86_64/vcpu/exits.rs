//! What each exit of a guest comes to.

#![allow(unsafe_code)]

use super::instruction::Usual;
use super::{Pending, Vcpu};
use crate::Platform;
use crate::x86_64::cpu::Cpu;
use crate::x86_64::cpuid::Cpuid;
use crate::x86_64::decode::{Op, Place};
use crate::x86_64::emulate::Stop;
use crate::x86_64::memory::{Access, Found};
use crate::x86_64::msr;
use crate::x86_64::regs::{Gprs, merge};
use crate::x86_64::space::{CR0_PG, CR4_PAE, EFER_LMA, Miss, mode};
use crate::x86_64::vendor::{Injection, Port, Reason, Vendor};
use crate::x86_64::vm::Kind;
use hypervisor::memory::{Gpa, Gva};
use hypervisor::vcpu::{BackendError, VmEntry, VmExit};
use hypervisor::vm::Cause;

type Outcome = Result<Option<VmExit>, BackendError>;

/// Instructions that leave guests, as they are usually encoded.
const HLT: Usual = Usual::one(0xf4);
const CPUID: Usual = Usual::two(0x0f, 0xa2);
const RDMSR: Usual = Usual::two(0x0f, 0x32);
const WRMSR: Usual = Usual::two(0x0f, 0x30);
const WBINVD: Usual = Usual::two(0x0f, 0x09);
const VMMCALL: Usual = Usual::three(0x0f, 0x01, 0xd9);
const XSETBV: Usual = Usual::three(0x0f, 0x01, 0xd1);

/// CR4 that every guest may set: VME, PVI, TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT.
const CR4_ALWAYS: u64 = 0x7ff;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4 that changes translations.
const CR4_TRANSLATION: u64 = 1 << 4 | CR4_PAE | 1 << 7 | CR4_PCIDE | 3 << 20;
/// CR4 bits with their features: leaf, register, bit.
const CR4_FEATURES: [(u64, u32, usize, u32); 7] = [
    (1 << 11, 7, 2, 2),      // UMIP
    (1 << 16, 7, 1, 0),      // FSGSBASE
    (CR4_PCIDE, 1, 2, 17),   // PCID
    (CR4_OSXSAVE, 1, 2, 26), // OSXSAVE
    (1 << 20, 7, 1, 7),      // SMEP
    (1 << 21, 7, 1, 20),     // SMAP
    (1 << 22, 7, 2, 3),      // PKU
];

/// The bits that a guest with this CPUID may set in CR4.
pub(super) fn cr4_allowed(cpuid: &Cpuid) -> u64 {
    let has = |(_, leaf, register, bit): &&(u64, u32, usize, u32)| {
        cpuid.find(*leaf, 0)[*register] >> bit & 1 != 0
    };
    CR4_FEATURES.iter().filter(has).fold(CR4_ALWAYS, |mask, (bit, ..)| mask | bit)
}

/// What an exit that is answered here counts as.
fn cause(reason: Reason) -> Cause {
    match reason {
        Reason::Port(_) => Cause::Io,
        Reason::Cpuid => Cause::Cpuid,
        Reason::ReadMsr => Cause::ReadMsr,
        Reason::WriteMsr => Cause::WriteMsr,
        Reason::Halt => Cause::Halt,
        Reason::Hypercall => Cause::Hypercall,
        Reason::WriteXcr | Reason::WriteCr4 | Reason::WriteCr8 => Cause::ControlRegister,
        Reason::Memory { .. } => Cause::PageFault,
        Reason::Window | Reason::NmiEnd => Cause::Window,
        Reason::DebugRegisters => Cause::DebugRegister,
        Reason::Exception(_) => Cause::Exception,
        Reason::Host => Cause::Interrupt,
        Reason::Skip
        | Reason::Undefined
        | Reason::Counter
        | Reason::MachineCheck
        | Reason::Shutdown
        | Reason::Invalid
        | Reason::Other(_) => Cause::Other,
    }
}

impl<P: Platform, V: Vendor<P>> Vcpu<P, V> {
    /// Finishes what the last exit has left open. Some exit if that asks for the next answer.
    #[inline(always)]
    pub(super) fn settle(&mut self, entry: VmEntry) -> Outcome {
        let value = match entry {
            VmEntry::Data(value) => value,
            VmEntry::Continue | VmEntry::Refuse => 0,
        };
        match core::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => {}
            Pending::In(size) => {
                let rax = &mut self.core.gprs.0[Gprs::RAX];
                *rax = merge(*rax, size, value);
            }
            Pending::ReadMsr(next) => {
                if entry == VmEntry::Refuse {
                    self.raise(Injection::GP);
                } else {
                    self.core.gprs.set_edx_eax(value);
                    self.events.retire(&mut self.v, next);
                }
            }
            Pending::WriteMsr(next) => {
                if entry == VmEntry::Refuse {
                    self.raise(Injection::GP);
                } else {
                    self.events.retire(&mut self.v, next);
                }
            }
            Pending::Hypercall => self.core.gprs.0[Gprs::RAX] = value,
            Pending::Instruction => return self.answered(value),
        }
        Ok(None)
    }

    /// Tells an exit that comes often, if it is as it usually is. `None`, and nothing has changed:
    /// [`Vcpu::answer`] looks closer.
    #[inline(always)]
    pub(super) fn quick(&mut self, reason: Reason) -> Option<VmExit> {
        match reason {
            Reason::Port(port) if !port.string => Some(self.port(port, port.next?)),
            Reason::Hypercall if self.vm.kind == Kind::Machine && self.v.cpl() == 0 => {
                let next = self.after_usual(VMMCALL)?;
                Some(self.hypercall(next))
            }
            Reason::WriteMsr if self.vm.kind == Kind::Machine => {
                let index = self.msr_index();
                let next = if msr::is_kept(index) { None } else { self.after_usual(WRMSR) };
                self.pending = Pending::WriteMsr(next?);
                Some(VmExit::WriteMsr { index, value: self.core.gprs.edx_eax() })
            }
            Reason::Memory { gpa, access, walk: false }
                if !self.events.is_interrupted() && self.vm.backing.is_device(gpa) =>
            {
                self.plain_access(gpa, access)
            }
            _ => None,
        }
    }

    /// Answers an exit, which is counted then, or tells it.
    #[inline(always)]
    pub(super) fn answer(&mut self, reason: Reason, cpu: &mut Cpu) -> Outcome {
        let outcome = self.handle(reason, cpu);
        if matches!(outcome, Ok(None)) {
            self.core.answered.count(cause(reason));
        }
        outcome
    }

    fn handle(&mut self, reason: Reason, cpu: &mut Cpu) -> Outcome {
        match reason {
            Reason::Port(port) => match port.next {
                Some(next) if !port.string => Ok(Some(self.port(port, next))),
                _ => self.string_port(port),
            },
            Reason::Host => {
                // The timer may have been what came.
                cpu.armed = 0;
                Ok(Some(VmExit::Interrupted))
            }
            Reason::WriteMsr => self.write_msr(cpu),
            Reason::ReadMsr => self.read_msr(),
            Reason::Memory { gpa, access, walk } => self.memory(gpa, access, walk),
            Reason::Halt => self.halt(),
            Reason::Cpuid => self.cpuid(),
            Reason::Hypercall => self.any_hypercall(),
            Reason::Window => {
                let wanted = self.events.window_reached(&mut self.v);
                Ok(wanted.then_some(VmExit::InterruptWindow))
            }
            other => self.rare(other, cpu),
        }
    }

    #[cold]
    fn rare(&mut self, reason: Reason, cpu: &mut Cpu) -> Outcome {
        match reason {
            Reason::NmiEnd => self.events.nmi_end(&mut self.v),
            Reason::WriteCr4 => return self.write_cr4(),
            Reason::WriteCr8 => return self.write_cr8(),
            Reason::WriteXcr => return self.write_xcr(cpu),
            Reason::Skip => return self.skip(WBINVD, None),
            Reason::Undefined => self.raise(Injection::UD),
            Reason::Counter => self.raise(Injection::GP),
            Reason::DebugRegisters => {
                // SAFETY: this CPU, where this vCPU is live.
                unsafe { cpu.load_debug(&mut self.core.live) };
                self.v.set_debug_exits(false);
            }
            Reason::Exception(exception) if exception == Injection::DB => {
                if let Some(exception) = self.events.debug_exception(&mut self.v) {
                    self.raise(exception);
                }
            }
            Reason::Exception(exception) => self.raise(exception),
            Reason::Shutdown => return Ok(Some(self.shutdown())),
            other => return Err(self.v.describe(other)),
        }
        Ok(if self.events.is_triple_fault() { Some(self.shutdown()) } else { None })
    }

    fn shutdown(&self) -> VmExit {
        VmExit::Shutdown { rip: Some(Gva(self.v.rip())) }
    }

    /// Lets the guest go on after its instruction, which is usually this one.
    fn skip(&mut self, usual: Usual, exit: Option<VmExit>) -> Outcome {
        match self.after(usual) {
            Ok(next) => {
                self.events.retire(&mut self.v, next);
                Ok(exit)
            }
            Err(stop) => self.lost(stop),
        }
    }

    /// A halt is not told where something that ends it is already on its way: its owner would wait
    /// for what can be given only after that.
    fn halt(&mut self) -> Outcome {
        let exit = self.skip(HLT, Some(VmExit::Halt))?;
        Ok(exit.filter(|_| !self.events.end_halt(&self.v)))
    }

    /// The instruction that has left the guest is not there any more: another vCPU has changed
    /// the guest's code or its page tables meanwhile.
    #[cold]
    fn lost(&mut self, stop: Stop) -> Outcome {
        match stop {
            Stop::Miss(Miss::Fault(exception, address)) => {
                if let Some(address) = address {
                    self.v.set_cr2(address);
                }
                self.raise(exception);
            }
            Stop::Miss(Miss::NoTable(address)) | Stop::Denied(address) => {
                let rip = Gva(self.v.rip());
                return Ok(Some(VmExit::MemoryFault { rip, address: Some(address) }));
            }
            Stop::Ask { .. } | Stop::Unsupported => self.raise(Injection::UD),
        }
        Ok(None)
    }

    #[inline(always)]
    fn port(&mut self, port: Port, next: u64) -> VmExit {
        self.events.retire(&mut self.v, next);
        let write = if port.input {
            self.pending = Pending::In(port.size);
            None
        } else {
            let [low, _] = crate::x86_64::processor::halves(self.core.gprs.0[Gprs::RAX]);
            Some(match port.size {
                1 => low & 0xff,
                2 => low & 0xffff,
                _ => low,
            })
        };
        VmExit::Io { port: port.port, size: port.size, write }
    }

    fn memory(&mut self, gpa: u64, access: Access, walk: bool) -> Outcome {
        let fault =
            |v: &V| Ok(Some(VmExit::MemoryFault { rip: Gva(v.rip()), address: Some(Gpa(gpa)) }));
        match self.vm.backing.fault(gpa, access) {
            Found::Mapped => Ok(None),
            Found::Exhausted => Err(BackendError::new(alloc::format!(
                "the memory that was promised for the guest's address {gpa:#x} is not there: please \
                 report it"
            ))),
            Found::Denied if self.vm.kind == Kind::Unikernel || access != Access::Write => {
                fault(&self.v)
            }
            // Code and page tables are not read from devices, and no event is delivered by way of
            // one.
            Found::Denied | Found::Device => {
                if walk || access == Access::Execute || self.events.is_interrupted() {
                    return fault(&self.v);
                }
                self.access(gpa, access)
            }
        }
    }

    fn cpuid(&mut self) -> Outcome {
        let [leaf, _] = crate::x86_64::processor::halves(self.core.gprs.0[Gprs::RAX]);
        let [subleaf, _] = crate::x86_64::processor::halves(self.core.gprs.0[Gprs::RCX]);
        let found = self.cpuid.answer(leaf, subleaf, self.v.cr4(), self.core.live.xcr0);
        let [eax, ebx, ecx, edx] = found.map(u64::from);
        match self.after(CPUID) {
            Ok(next) => {
                let gprs = &mut self.core.gprs.0;
                (gprs[Gprs::RAX], gprs[Gprs::RBX]) = (eax, ebx);
                (gprs[Gprs::RCX], gprs[Gprs::RDX]) = (ecx, edx);
                self.events.retire(&mut self.v, next);
                Ok(None)
            }
            Err(stop) => self.lost(stop),
        }
    }

    fn msr_index(&self) -> u32 {
        crate::x86_64::processor::halves(self.core.gprs.0[Gprs::RCX])[0]
    }

    fn read_msr(&mut self) -> Outcome {
        let index = self.msr_index();
        match self.msrs.read(index, &self.v, self.vm.tsc.ratio, &self.core.live, &self.cpuid) {
            Some(Ok(value)) => {
                let outcome = self.skip(RDMSR, None);
                // Where that raised an exception the registers do not matter.
                self.core.gprs.set_edx_eax(value);
                outcome
            }
            Some(Err(msr::Refused)) => self.refuse(),
            None if self.vm.kind == Kind::Unikernel => self.refuse(),
            None => match self.after(RDMSR) {
                Ok(next) => {
                    self.pending = Pending::ReadMsr(next);
                    Ok(Some(VmExit::ReadMsr { index }))
                }
                Err(stop) => self.lost(stop),
            },
        }
    }

    fn write_msr(&mut self, cpu: &mut Cpu) -> Outcome {
        let index = self.msr_index();
        let value = self.core.gprs.edx_eax();
        let (tsc, live) = (self.vm.tsc.ratio, &mut self.core.live);
        match self.msrs.write(index, value, &mut self.v, tsc, live, &self.cpuid) {
            Some(Ok(())) => {
                if msr::is_tsc_aux(index) {
                    // SAFETY: this CPU, where this vCPU is live.
                    unsafe { cpu.set_tsc_aux(value) };
                }
                self.skip(WRMSR, None)
            }
            Some(Err(msr::Refused)) => self.refuse(),
            None if self.vm.kind == Kind::Unikernel => self.refuse(),
            None => match self.after(WRMSR) {
                Ok(next) => {
                    self.pending = Pending::WriteMsr(next);
                    Ok(Some(VmExit::WriteMsr { index, value }))
                }
                Err(stop) => self.lost(stop),
            },
        }
    }

    fn refuse(&mut self) -> Outcome {
        self.raise(Injection::GP);
        Ok(None)
    }

    fn any_hypercall(&mut self) -> Outcome {
        /// KVM's answer to a caller that is not a kernel: -EPERM.
        const NOT_PERMITTED: u64 = (-1i64).cast_unsigned();
        if self.vm.kind == Kind::Unikernel {
            self.raise(Injection::UD);
            return Ok(None);
        }
        let next = match self.after(VMMCALL) {
            Ok(next) => next,
            Err(stop) => return self.lost(stop),
        };
        if self.v.cpl() != 0 {
            self.core.gprs.0[Gprs::RAX] = NOT_PERMITTED;
            self.events.retire(&mut self.v, next);
            return Ok(None);
        }
        Ok(Some(self.hypercall(next)))
    }

    #[inline(always)]
    fn hypercall(&mut self, next: u64) -> VmExit {
        self.events.retire(&mut self.v, next);
        let gprs = &self.core.gprs.0;
        let arguments = [gprs[Gprs::RBX], gprs[Gprs::RCX], gprs[Gprs::RDX], gprs[Gprs::RSI]];
        self.pending = Pending::Hypercall;
        VmExit::Hypercall { number: gprs[Gprs::RAX], arguments }
    }

    /// The value that MOV writes to a control register, and where the guest goes on.
    fn control_register(&mut self) -> Result<(u64, u64), Stop> {
        let mode = mode::<P, V>(&self.v);
        let insn = self.decode(mode)?;
        let (Op::ToCr(_), Place::Register(number)) = (insn.op, insn.place) else {
            return Err(Stop::Unsupported);
        };
        let value = self.core.gprs.get(number);
        let value = if insn.size == 8 { value } else { value & 0xffff_ffff };
        Ok((value, self.v.rip().wrapping_add(u64::from(insn.len))))
    }

    fn write_cr4(&mut self) -> Outcome {
        let (value, next) = match self.control_register() {
            Ok(found) => found,
            Err(stop) => return self.lost(stop),
        };
        let old = self.v.cr4();
        let long = self.v.efer() & EFER_LMA != 0;
        let enables_pcid = value & !old & CR4_PCIDE != 0;
        let refused = value & !self.cr4_allowed != 0
            || long && self.v.cr0() & CR0_PG != 0 && value & CR4_PAE == 0
            || enables_pcid && (!long || self.v.cr3() & 0xfff != 0);
        if refused {
            return self.refuse();
        }
        self.v.set_cr4(value);
        if (value ^ old) & CR4_TRANSLATION != 0 {
            self.v.flush();
        }
        self.events.retire(&mut self.v, next);
        Ok(None)
    }

    fn write_cr8(&mut self) -> Outcome {
        let (value, next) = match self.control_register() {
            Ok(found) => found,
            Err(stop) => return self.lost(stop),
        };
        if value > 15 {
            return self.refuse();
        }
        let lowered = value < u64::from(self.v.task_priority());
        self.v.set_task_priority(value.to_le_bytes()[0]);
        self.events.retire(&mut self.v, next);
        // What waited for a lower priority may come now.
        Ok((lowered && self.vm.kind == Kind::Machine).then_some(VmExit::InterruptWindow))
    }

    fn write_xcr(&mut self, cpu: &mut Cpu) -> Outcome {
        const X87: u64 = 1;
        const SSE: u64 = 2;
        const AVX: u64 = 4;
        const AVX512: u64 = 0xe0;
        // The processor asks for this before it leaves the guest; QEMU's does not.
        if self.v.cr4() & CR4_OSXSAVE == 0 {
            self.raise(Injection::UD);
            return Ok(None);
        }
        let value = self.core.gprs.edx_eax();
        let allowed = self.cpuid.components() & self.vm.platform.xcr0();
        let complete = value & X87 != 0
            && (value & AVX == 0 || value & SSE != 0)
            && (value & AVX512 == 0 || value & AVX512 == AVX512 && value & AVX != 0);
        let first = self.msr_index() == 0;
        if !first || !complete || value & !allowed != 0 || self.v.cpl() != 0 {
            return self.refuse();
        }
        self.core.live.xcr0 = value;
        // SAFETY: this CPU, where this vCPU is live; the components are the platform's.
        unsafe { cpu.set_xcr0(value) };
        self.skip(XSETBV, None)
    }
}
