//! Interrupts on their way into the guest, and the deadline by which it must be left.

use super::{Activity, LocalApic, Processor};
use crate::vcpu::machine::{Event, MachineVcpu, MachineVm};

/// How often, in nanoseconds, a vCPU is left to look at its task priority, if its backend cannot
/// tell when that falls and an interrupt waits for it.
const PRIORITY_LOOK: u64 = 500_000;

impl<V: MachineVm> Processor<V> {
    /// Whether the 8259 pair's interrupt is to come to this vCPU.
    fn external(&self) -> bool {
        self.index == 0
            && self.machine.controllers.external()
            && self.apic.as_ref().is_none_or(|apic| apic.takes_external())
    }

    /// Whether a halted processor goes on.
    pub(super) fn wakes(&mut self) -> bool {
        if self.activity != Activity::Halted {
            return false;
        }
        if core::mem::take(&mut self.unhalted) {
            return true;
        }
        let waits =
            self.external() || self.apic.as_ref().is_some_and(|a| a.deliverable().is_some());
        waits && self.vcpu.interruptible()
    }

    /// A non-maskable interrupt ends a halt.
    pub(super) fn raise_nmi(&mut self) {
        if self.activity != Activity::Waiting {
            self.vcpu.inject(Event::Nmi);
            self.activity = Activity::Running;
        }
    }

    /// Injects what the guest can take, and asks for a window for what it cannot.
    /// `true` if one waits.
    pub(super) fn deliver(&mut self) -> bool {
        let external = self.external();
        let vector = self.apic.as_ref().and_then(|apic| apic.deliverable());
        let mut waits = external || vector.is_some();
        if waits && self.vcpu.interruptible() {
            // One at a time; of two the other waits for its window.
            waits = external && vector.is_some();
            self.inject(external, vector);
        }
        if waits || self.window {
            self.window = waits;
            self.vcpu.request_window(waits);
        }
        if let Some(apic) = &self.apic {
            self.paravirt.offer_end(apic, self.machine.vm.memory());
        }
        waits
    }

    fn inject(&mut self, external: bool, vector: Option<u8>) {
        let vector = match (vector, &mut self.apic) {
            (Some(vector), Some(apic)) if !external => {
                apic.begin(vector);
                vector
            }
            _ => self.machine.controllers.acknowledge(),
        };
        self.vcpu.inject(Event::Interrupt { vector });
    }

    /// Tells the vCPU by when it is to be left. `true` if an interrupt waits for the task's
    /// priority to fall.
    pub(super) fn arm(&mut self) -> bool {
        let mut deadline = self.deadline();
        let held = self.apic.as_ref().and_then(LocalApic::held_by_priority);
        if held != self.watched || held.is_some() {
            self.watched = held;
            if !self.vcpu.watch_priority(held) && held.is_some() {
                let look = self.machine.clock().monotonic_ns().saturating_add(PRIORITY_LOOK);
                deadline = Some(deadline.map_or(look, |at| at.min(look)));
            }
        }
        if deadline != self.armed {
            self.armed = deadline;
            self.vcpu.set_deadline(deadline);
        }
        held.is_some()
    }

    /// Takes from the guest what it has done to its local APIC without an exit. To be called
    /// before anything is done with that APIC.
    pub(super) fn sync(&mut self) {
        let Some(apic) = &mut self.apic else { return };
        // CR8 is the upper half of the task priority; the guest writes it without an exit.
        let priority = self.vcpu.task_priority();
        if priority != apic.task_priority() & 0xf0 {
            apic.set_task_priority(priority);
        }
        self.paravirt.take_end(apic, self.machine.vm.memory());
    }
}
