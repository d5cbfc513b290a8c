//! What each exit means.

use super::{Activity, Processor, now};
use crate::device::Width;
use crate::modes::type1::apic::{LocalApic, Refused};
use crate::modes::type1::board::Verdict;
use crate::modes::type1::paravirt::{self, Reference};
use crate::modes::type1::{layout, msr};
use crate::vcpu::machine::{MachineVcpu, MachineVm};
use crate::vcpu::{VmEntry, VmExit, line};

impl<V: MachineVm> Processor<V> {
    /// Answers an exit: `self.entry` is how the vCPU goes on.
    ///
    /// What may change when an interrupt comes sets `busy`, but for what comes by the inbox, as
    /// everything does that devices do.
    pub(super) fn answer(&mut self, exit: &VmExit) {
        match *exit {
            VmExit::Mmio { gpa, size, write } => {
                let page = self.apic.as_ref().and_then(LocalApic::page);
                match page.map(|page| gpa.0.wrapping_sub(page)).filter(|offset| *offset < 0x1000) {
                    Some(offset) => self.apic_page(offset, size, write),
                    None => self.device(exit),
                }
            }
            VmExit::Io { .. } => self.device(exit),
            VmExit::ReadMsr { index } => {
                self.entry = self.read_msr(index).map_or(VmEntry::Refuse, VmEntry::Data);
            }
            VmExit::WriteMsr { index, value } => {
                self.entry = match self.write_msr(index, value) {
                    Ok(()) => VmEntry::Continue,
                    Err(Refused) => VmEntry::Refuse,
                };
            }
            VmExit::Hypercall { number, arguments } => {
                let answer = paravirt::hypercall(number, arguments, &self.machine.bus);
                self.entry = VmEntry::Data(answer);
            }
            VmExit::InterruptWindow => self.busy = true,
            VmExit::Interrupted => {
                self.due = true;
                self.busy = true;
            }
            VmExit::EndOfInterrupt { vector } => self.machine.controllers.end_of_interrupt(vector),
            // A backend that has the local APICs lets its vCPUs wait itself.
            VmExit::Halt if self.apic.is_some() => {
                self.activity = Activity::Halted;
                self.busy = true;
            }
            VmExit::Halt => {}
            // On a PC a triple fault resets the machine.
            VmExit::Shutdown { .. } => self.machine.board.power.ask(Verdict::Reset),
            VmExit::MemoryFault { rip, address } => {
                let address = address.map_or(0, |gpa| gpa.0);
                self.end(format_args!("memory fault at {rip:#x}, address {address:#x}"));
            }
            VmExit::Ended(ref ending) => {
                self.end(format_args!("the backend ended a machine's vCPU: {ending:?}"));
            }
        }
    }

    fn end(&mut self, text: core::fmt::Arguments<'_>) {
        let vcpu = self.index;
        let verdict = Verdict::Fault(line(format_args!("vCPU {vcpu}: {text}")));
        self.machine.board.power.ask(verdict);
    }

    fn device(&mut self, exit: &VmExit) {
        let board = &self.machine.board;
        let Some(outcome) = board.devices.answer(exit) else { return };
        if let Some(entry) = outcome.entry {
            self.entry = entry;
        }
        if let Some(request) = outcome.request {
            board.request(request);
        }
    }

    fn apic_page(&mut self, offset: u64, size: u8, write: Option<u64>) {
        self.sync();
        let Some(apic) = &mut self.apic else { return };
        let now = now(&self.machine, &self.vcpu);
        let width = Width::from_bytes(size).unwrap_or(Width::Long);
        let Some(value) = write else {
            self.entry = VmEntry::Data(apic.read_page(offset, width, &now));
            return;
        };
        let ended = apic.write_page(offset, width, value, &now);
        self.after_apic(ended);
    }

    /// What follows a write to the local APIC.
    fn after_apic(&mut self, ended: Option<u8>) {
        self.busy = true;
        let Some(apic) = &self.apic else { return };
        if let Some(vector) = ended {
            self.machine.controllers.end_of_interrupt(vector);
        }
        self.due |= apic.has_passed();
        self.vcpu.set_task_priority(apic.task_priority());
    }

    /// CPUID follows IA32_APIC_BASE (Intel SDM vol. 3 §11.4.3).
    fn show_local_apic(&mut self) {
        if let Some(apic) = &self.apic {
            self.vcpu.show_local_apic(apic.is_on());
        }
    }

    fn read_msr(&mut self, index: u32) -> Result<u64, Refused> {
        self.sync();
        if let Some(apic) = &mut self.apic {
            let now = now(&self.machine, &self.vcpu);
            if let Some(answer) = msr::read_apic(apic, index, &now) {
                return answer;
            }
            if let Some(value) = self.paravirt.read_msr(index) {
                return Ok(value);
            }
        }
        self.msrs.read(index)
    }

    fn write_msr(&mut self, index: u32, value: u64) -> Result<(), Refused> {
        self.sync();
        if let Some(apic) = &mut self.apic {
            let now = now(&self.machine, &self.vcpu);
            if let Some(answer) = msr::write_apic(apic, index, value, &now) {
                self.after_apic(answer?);
                if index == msr::APIC_BASE {
                    self.show_local_apic();
                }
                return Ok(());
            }
            if let Some(answer) = self.write_paravirt(index, value) {
                return answer;
            }
        }
        self.msrs.write(index, value)
    }

    fn write_paravirt(&mut self, index: u32, value: u64) -> Option<Result<(), Refused>> {
        self.paravirt.read_msr(index)?;
        self.busy = true;
        let (machine, vcpu) = (&self.machine, &self.vcpu);
        let reference =
            machine.reference(|| Reference::now(&now(machine, vcpu), machine.clock().wall_ns()));
        let memory = machine.vm.memory();
        self.paravirt.write_msr(index, value, memory, reference, machine.frequency)
    }
}

/// The local APIC's page is nowhere near other devices.
const _: () = assert!(layout::LOCAL_APIC.start > layout::IO_APIC.end);
