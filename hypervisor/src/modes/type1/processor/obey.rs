//! The end or the reset of the whole machine, as one vCPU takes part in it.

use super::{Processor, wait_for_startup};
use crate::modes::type1::apic::Requests;
use crate::modes::type1::board::Verdict;
use crate::modes::type1::boot::state::reset as after_reset;
use crate::modes::type1::machine::Turn;
use crate::modes::type1::msr::Msrs;
use crate::modes::type1::paravirt::Paravirt;
use crate::vcpu::machine::{MachineVcpu, MachineVm};
use crate::vcpu::{BackendError, Ending, VcpuState, VmEntry};

impl<V: MachineVm> Processor<V> {
    /// Something is asked for: gives the end, or takes part in the reset.
    pub(super) fn obey(&mut self) -> Result<Option<Ending>, BackendError> {
        let power = &self.machine.board.power;
        match power.verdict() {
            None => self.follow_if_reset().map(|()| None),
            Some(Verdict::Reset) => self.take_part().map(|()| None),
            Some(verdict) => {
                self.machine.parts.flush();
                Ok(verdict.ending())
            }
        }
    }

    /// Comes to the reset, does it if it is the last to come, and follows it.
    fn take_part(&mut self) -> Result<(), BackendError> {
        let machine = self.machine.clone();
        let inbox = &self.inbox;
        let forget = || {
            let _ = inbox.take();
        };
        match machine.gathering.arrive(self.generation, &mut self.arrived, forget) {
            Turn::Wait => {
                // Whatever wakes it, it looks again; the reset's end is a request to all.
                if machine.gathering.generation() == self.generation && self.inbox.enter() {
                    self.inbox.thread().park(None);
                    self.inbox.leave();
                }
                return Ok(());
            }
            Turn::Reset => {
                machine.parts.flush();
                machine.reset();
                machine.gathering.done(|| machine.board.power.reset_done());
                for inbox in machine.bus.inboxes() {
                    inbox.ask(Requests::LOOK);
                }
            }
            Turn::Go => {}
        }
        self.arrived = false;
        self.follow()
    }

    fn follow_if_reset(&mut self) -> Result<(), BackendError> {
        if self.generation == self.machine.gathering.generation() {
            return Ok(());
        }
        self.arrived = false;
        self.follow()
    }

    /// The machine has been reset: so is this processor. What waits in its inbox has been asked for
    /// since: the first processor may have sent its start-up already.
    fn follow(&mut self) -> Result<(), BackendError> {
        self.generation = self.machine.gathering.generation();
        let first = if self.index == 0 { self.machine.start() } else { None };
        let state = first.unwrap_or(VcpuState::X86(after_reset(self.machine.signature)));
        self.vcpu.restart(&state)?;
        if let Some(apic) = &mut self.apic {
            apic.reset();
            self.vcpu.set_task_priority(0);
        }
        self.msrs = Msrs::default();
        self.paravirt = Paravirt::default();
        self.activity = wait_for_startup(self.index, self.machine.local_apics);
        self.unhalted = false;
        self.entry = VmEntry::Continue;
        self.due = true;
        self.busy = true;
        self.watched = None;
        Ok(())
    }
}
