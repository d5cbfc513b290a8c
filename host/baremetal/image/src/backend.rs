//! The backend that guests run on.

use hypervisor::memory::{GuestMemory, Perms};
use hypervisor::vcpu::{
    Backend, BackendCaps, BackendError, BackendVcpu, BackendVm, ExitHandler, VcpuState, VmEntry,
    VmExit, VmSpec,
};

/// None yet.
pub struct Missing;

impl Backend for Missing {
    type Vm = Missing;

    fn name(&self) -> &'static str {
        "none"
    }

    fn capabilities(&self) -> BackendCaps {
        BackendCaps {
            doorbells: false,
            answers_locally: false,
            lowest_gpa: hypervisor::memory::Gpa(0),
            max_vcpus: 0,
        }
    }

    fn create_vm(&self, _: VmSpec) -> Result<Missing, BackendError> {
        Err(BackendError::new("this build has no backend for the bare machine"))
    }
}

impl BackendVm for Missing {
    type Vcpu = Missing;

    fn memory(&self) -> &GuestMemory {
        unreachable!("none is ever made")
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        unreachable!("none is ever made")
    }

    fn protect(&mut self, _: core::ops::Range<u64>, _: Perms) -> Result<(), BackendError> {
        Ok(())
    }

    fn cycle_frequency(&self) -> Result<u64, BackendError> {
        Ok(crate::time::frequency())
    }

    fn create_vcpu(
        &self,
        _: VcpuState,
        _: alloc::sync::Arc<dyn ExitHandler>,
    ) -> Result<Missing, BackendError> {
        Ok(Missing)
    }
}

impl BackendVcpu for Missing {
    fn run(&mut self, _: VmEntry) -> Result<VmExit, BackendError> {
        Ok(VmExit::Interrupted)
    }
}
