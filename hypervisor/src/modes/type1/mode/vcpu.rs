//! A vCPU as its thread has it.

use super::{Inner, Processor};
use crate::mode::{ModeError, Vcpu, VcpuExit, VcpuId};
use crate::modes::type1::board::Verdict;
use crate::vcpu::machine::MachineBackend;
use crate::vcpu::{Backend, line};
use crate::vm::{Vm, VmId, Vms};
use alloc::sync::Arc;

/// A vCPU.
pub(super) struct Type1Vcpu<B: Backend> {
    processor: Processor<B::Vm>,
    vm: Arc<Vm<Inner<B>>>,
    vms: Arc<Vms<Inner<B>>>,
}

impl<B: MachineBackend> Type1Vcpu<B> {
    pub(super) fn new(
        vm: Arc<Vm<Inner<B>>>,
        vms: Arc<Vms<Inner<B>>>,
        processor: Processor<B::Vm>,
    ) -> Self {
        Self { processor, vm, vms }
    }
}

impl<B: MachineBackend + 'static> Vcpu for Type1Vcpu<B>
where
    B::Vm: 'static,
{
    fn vm(&self) -> VmId {
        self.vm.id()
    }

    fn id(&self) -> VcpuId {
        VcpuId(self.processor.index())
    }

    fn run(&mut self) -> Result<VcpuExit, ModeError> {
        let run = self.vm.check_running()?;
        self.processor.power().start(run);
        let ending = self.processor.run(&self.vm.accounts);
        if let Err(error) = &ending {
            // The others end with it.
            let text = line(format_args!("vCPU {}: {error}", self.processor.index()));
            self.processor.power().ask(Verdict::Fault(text));
        }
        self.vms.end_run(&self.vm, run);
        Ok(ending?)
    }
}
