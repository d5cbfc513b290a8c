//! INIT and start-up (Intel SDM vol. 3 §10.4 and §11.4.7.3).

use super::{Activity, Processor};
use crate::modes::type1::boot::state::reset as after_reset;
use crate::vcpu::machine::{MachineVcpu, MachineVm};
use crate::vcpu::{BackendError, VcpuState, VmEntry, X86State};

/// What a processor does after reset: the first runs, the others wait for their start-up. Where
/// the backend has the local APICs it is the backend that lets them wait.
pub(super) fn wait_for_startup(index: u32, local_apics: bool) -> Activity {
    if index > 0 && local_apics { Activity::Waiting } else { Activity::Running }
}

/// Where a start-up message with this vector starts a processor that INIT has reset: real mode, at
/// the start of the page of that number.
fn started(signature: u32, vector: u8) -> X86State {
    let mut state = after_reset(signature);
    state.rip = 0;
    state.cs.selector = u16::from(vector) << 8;
    state.cs.base = u64::from(vector) << 12;
    state
}

impl<V: MachineVm> Processor<V> {
    /// INIT: the first processor starts as after reset, the others wait.
    pub(super) fn init(&mut self) -> Result<(), BackendError> {
        let Some(apic) = &mut self.apic else { return Ok(()) };
        apic.init();
        self.paravirt.init();
        self.vcpu.reset(&VcpuState::X86(after_reset(self.machine.signature)))?;
        self.vcpu.set_task_priority(0);
        self.entry = VmEntry::Continue;
        self.unhalted = false;
        self.activity = wait_for_startup(self.index, true);
        Ok(())
    }

    /// A start-up message: only one that waits for it takes it.
    pub(super) fn start_up(&mut self, vector: u8) -> Result<(), BackendError> {
        if self.activity == Activity::Waiting {
            self.vcpu.reset(&VcpuState::X86(started(self.machine.signature, vector)))?;
            self.activity = Activity::Running;
        }
        Ok(())
    }
}
