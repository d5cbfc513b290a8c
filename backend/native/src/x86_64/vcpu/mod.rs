//! A vCPU: what is common to all vendors.
//!
//! [`Vcpu::run`] enters the guest until it does something that its owner has to know. The rest
//! (CPUID, registers that the backend keeps, pages that the guest touches first) is answered
//! here. A host interrupt always ends a run, so the loop cannot keep the CPU.

#![allow(unsafe_code)]

mod bus;
mod code;
mod events;
mod exits;
mod instruction;
#[cfg(test)]
mod tests;

use super::cpu::{self, Cpu, Live};
use super::cpuid::Cpuid;
use super::msr::Msrs;
use super::regs::Gprs;
use super::space::is_64_bit;
use super::vendor::{Injection, Kind, Reason, Vendor};
use super::vm::Vm;
use crate::{HostPhys, Platform};
use alloc::boxed::Box;
use alloc::sync::Arc;
use code::CodePages;
use events::Events;
use hypervisor::vcpu::machine::Exception;
use hypervisor::vcpu::{BackendError, VcpuState, VmEntry, VmExit};
use hypervisor::vm::{Answered, Exits};
use instruction::Instruction;

/// A vCPU of one vendor's.
pub(crate) struct Vcpu<P: Platform, V: Vendor<P>> {
    v: V,
    /// At a place of their own: the CPU they are live on knows it.
    core: Box<Core>,
    pending: Pending,
    /// The instruction that is carried out.
    held: Instruction,
    /// Where it may be.
    pages: CodePages,
    events: Events,
    cpuid: Cpuid,
    msrs: Msrs,
    /// Bits that the guest may set in CR4.
    cr4_allowed: u64,
    deadline: Option<u64>,
    fpu: HostPhys,
    vm: Arc<Vm<P, V>>,
}

/// The registers that are not the vendor's.
struct Core {
    gprs: Gprs,
    live: Live,
    /// Exits that were answered here.
    answered: Answered,
}

/// What the last exit has left open.
enum Pending {
    Nothing,
    /// IN of so many bytes.
    In(u8),
    /// RDMSR; the next instruction is there.
    ReadMsr(u64),
    /// WRMSR.
    WriteMsr(u64),
    /// A call; RIP has gone on.
    Hypercall,
    /// [`Vcpu::held`] asks a device or a port.
    Instruction,
}

impl<P: Platform, V: Vendor<P>> Vcpu<P, V> {
    /// A vCPU in `state`.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(vm: &Arc<Vm<P, V>>, cpuid: Cpuid, state: &VcpuState) -> Result<Self, BackendError> {
        let none = || BackendError::new("this machine has no memory left for another vCPU");
        let v = V::new(&vm.shared, vm.backing.root()).ok_or_else(none)?;
        let fpu = vm.platform.alloc(0).ok_or_else(none)?;
        // SAFETY: a frame of zeros that is this vCPU's until it is dropped.
        let live = unsafe { Live::new(vm.platform.virt(fpu), vm.number) };
        let mut vcpu = Self {
            v,
            core: Box::new(Core { gprs: Gprs::default(), live, answered: Answered::default() }),
            pending: Pending::Nothing,
            held: Instruction::default(),
            pages: CodePages::default(),
            events: Events::default(),
            cr4_allowed: exits::cr4_allowed(&cpuid),
            cpuid,
            msrs: Msrs::default(),
            deadline: None,
            fpu,
            vm: vm.clone(),
        };
        vcpu.v.set_tsc_offset(vm.tsc_offset);
        vcpu.begin(state);
        Ok(vcpu)
    }

    /// Everything as after a reset, but what the state names. The cycle counter goes on.
    pub fn reset(&mut self, state: &VcpuState) {
        self.leave();
        self.core.live.reset();
        self.begin(state);
    }

    /// The same, and the cycle counter is in step with those of the VM's other vCPUs.
    pub fn restart(&mut self, state: &VcpuState) {
        self.reset(state);
        self.msrs = Msrs::default();
        self.v.set_tsc_offset(self.vm.tsc_offset);
    }

    /// The same for one whose registers beside the vendor's are those after a reset.
    fn begin(&mut self, state: &VcpuState) {
        let VcpuState::X86(state) = state;
        self.pending = Pending::Nothing;
        self.events = Events::default();
        self.cpuid.show_local_apic(true);
        self.v.reset(state);
        let gprs = &mut self.core.gprs;
        *gprs = Gprs::default();
        gprs.0[Gprs::RSP] = state.rsp;
        gprs.0[Gprs::RDI] = state.rdi;
        gprs.0[Gprs::RSI] = state.rsi;
        gprs.0[Gprs::RBX] = state.rbx;
        gprs.0[Gprs::RAX] = state.rax;
        gprs.0[Gprs::RDX] = state.rdx;
    }

    /// Runs until the guest does something that its owner has to know.
    ///
    /// The exits that come most often are made here and now, where the caller wants them: to hand
    /// an exit through a few calls costs more than to find out what it is.
    ///
    /// # Errors
    /// If the backend itself failed.
    #[inline]
    pub fn run(&mut self, entry: VmEntry) -> Result<VmExit, BackendError> {
        if !matches!(self.pending, Pending::Nothing)
            && let Some(exit) = self.settle(entry)?
        {
            return Ok(exit);
        }
        let cpu = self.here()?;
        let reason = self.step(cpu);
        match self.quick(reason) {
            Some(exit) => Ok(exit),
            None => self.go_on(reason, cpu),
        }
    }

    /// Answers exits and enters again until there is one to be told. A function of its own, so that
    /// the usual exits have the processor's registers for themselves.
    #[inline(never)]
    fn go_on(&mut self, reason: Reason, cpu: &'static mut Cpu) -> Result<VmExit, BackendError> {
        let (mut reason, mut cpu) = (reason, cpu);
        loop {
            match self.answer(reason, cpu) {
                Ok(None) => {}
                Ok(Some(exit)) => return Ok(exit),
                Err(error) => return Err(error),
            }
            cpu = self.here()?;
            reason = self.step(cpu);
        }
    }

    /// The exits that were answered here since the last call, if there were any.
    #[inline]
    pub fn take_answered(&mut self) -> Option<Exits> {
        self.core.answered.take()
    }

    /// This CPU, ready for guests and with this vCPU's registers in it.
    #[inline(always)]
    fn here(&mut self) -> Result<&'static mut Cpu, BackendError> {
        let platform = self.vm.platform;
        let cpu = match cpu::known(platform) {
            // SAFETY: this CPU's, which nobody else uses while interrupts are off; references do
            // not outlive one step of one vCPU.
            Some(cpu) if unsafe { (*cpu).has(&raw const self.core.live) } => unsafe { &mut *cpu },
            _ => self.come_here()?,
        };
        if let Some(deadline) = self.deadline
            && cpu.armed != deadline
        {
            platform.arm_timer(Some(deadline));
            cpu.armed = deadline;
        }
        Ok(cpu)
    }

    /// Makes this CPU ready, and puts the registers into it.
    #[cold]
    fn come_here(&mut self) -> Result<&'static mut Cpu, BackendError> {
        let platform = self.vm.platform;
        let none = || BackendError::new("this machine has no memory left for guests on this CPU");
        let cpu = cpu::this(platform).ok_or_else(none)?;
        // SAFETY: as in `here`.
        let cpu = unsafe { &mut *cpu };
        if !cpu.enabled {
            cpu.enabled = V::enable(&self.vm.shared, cpu);
            if !cpu.enabled {
                return Err(none());
            }
        }
        if self.core.live.is_elsewhere(cpu.number) {
            return Err(BackendError::new(
                "a vCPU came to another CPU without its registers: the kernel has to call \
                 backend_native::release before it moves a thread; please report it",
            ));
        }
        let live = &raw mut self.core.live;
        // SAFETY: this CPU, enabled; the registers are in a box of this vCPU, which releases them
        // when it is dropped, and the kernel does before the thread moves.
        unsafe {
            cpu.acquire(platform, live);
            self.v.arrive(cpu, self.vm.tsc.ratio);
        }
        self.arrive(cpu);
        Ok(cpu)
    }

    /// DR0 to DR3 come with the vCPU only if it has breakpoints, else at their first use.
    fn arrive(&mut self, cpu: &mut Cpu) {
        const ENABLED: u64 = 0xff;
        let wanted = self.v.dr7() & ENABLED != 0;
        self.v.set_debug_exits(!wanted);
        if wanted {
            // SAFETY: this CPU, where the vCPU has just become live.
            unsafe { cpu.load_debug(&mut self.core.live) };
        }
    }

    /// Enters the guest once, and says why it was left.
    #[inline(always)]
    fn step(&mut self, cpu: &mut Cpu) -> Reason {
        self.events.before_entry(&mut self.v, || self.vm.platform.kick(cpu.number));
        // SAFETY: this CPU, enabled, interrupts are off; the rest of the registers is in it.
        unsafe { self.v.enter(cpu, &mut self.core.gprs) };
        self.events.after_exit(&mut self.v);
        self.v.reason()
    }

    /// Takes this vCPU's registers out of the CPU, if they are in this one.
    fn leave(&mut self) {
        if self.core.live.is_live() {
            cpu::release(self.vm.platform);
        }
    }

    /// The next run ends by this time at the latest.
    pub fn set_deadline(&mut self, at: Option<u64>) {
        if at.is_none() && self.deadline.is_some() && self.core.live.is_live() {
            self.vm.platform.arm_timer(None);
            if let Some(cpu) = cpu::this(self.vm.platform) {
                // SAFETY: as in `here`.
                unsafe { (*cpu).armed = 0 };
            }
        }
        // A CPU's 0 says that nobody wishes anything.
        self.deadline = at.map(|at| at.max(1));
    }

    /// The guest's cycle counter.
    pub fn cycles(&self) -> u64 {
        self.v.tsc(self.vm.tsc.ratio)
    }

    /// CR8, as the APIC has it.
    pub fn task_priority(&self) -> u8 {
        self.v.task_priority() << 4
    }

    /// Sets what CR8 reads.
    pub fn set_task_priority(&mut self, priority: u8) {
        self.v.set_task_priority(priority >> 4);
    }

    /// Whether CPUID tells of a local APIC, if there is one.
    pub fn show_local_apic(&mut self, on: bool) {
        self.cpuid.show_local_apic(on);
    }

    /// Whether the guest would take a maskable interrupt at its next instruction.
    pub fn interruptible(&self) -> bool {
        self.events.interruptible(&self.v)
    }

    /// Gives the guest an event at the next entry.
    pub fn inject(&mut self, event: hypervisor::vcpu::machine::Event) {
        self.events.inject(event);
    }

    /// Gives the guest an exception at the next entry.
    ///
    /// # Errors
    /// If the guest cannot meet it.
    pub fn raise_from_outside(&mut self, exception: Exception) -> Result<(), BackendError> {
        exception.check(is_64_bit(&self.v))?;
        let Exception { vector, error_code } = exception;
        self.events.raise(Injection { vector, kind: Kind::Exception, error_code });
        Ok(())
    }

    /// Whether the next run is to end as soon as the guest is interruptible.
    pub fn request_window(&mut self, wanted: bool) {
        self.events.request_window(&mut self.v, wanted);
    }
}

impl<P: Platform, V: Vendor<P>> Drop for Vcpu<P, V> {
    fn drop(&mut self) {
        // That CPU would save them to where they were.
        #[cfg(any(test, feature = "audit"))]
        assert!(
            !self.core.live.is_elsewhere(self.vm.platform.cpu()),
            "a vCPU is dropped whose registers are in another CPU: its thread has to release them"
        );
        self.leave();
        // SAFETY: from `new`, and no CPU has these registers any more.
        unsafe { self.vm.platform.free(self.fpu, 0) };
    }
}
