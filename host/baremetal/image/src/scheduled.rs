//! Between modes and the native backend: a vCPU that was interrupted lets the host take its
//! interrupt, and other threads their turn, before its mode hears of it.

use crate::thread;
use alloc::sync::Arc;
use core::ops::Range;
use hypervisor::memory::{GuestMemory, Perms};
use hypervisor::vcpu::{
    Backend, BackendCaps, BackendError, BackendVcpu, BackendVm, Doorbell, ExitHandler, VcpuState,
    VmEntry, VmExit, VmSpec,
};

/// A backend, a VM or a vCPU of it, whose thread gives way at interrupts.
pub struct Scheduled<T>(pub T);

impl<B: Backend> Backend for Scheduled<B> {
    type Vm = Scheduled<B::Vm>;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn capabilities(&self) -> BackendCaps {
        self.0.capabilities()
    }

    fn create_vm(&self, spec: VmSpec) -> Result<Self::Vm, BackendError> {
        self.0.create_vm(spec).map(Scheduled)
    }
}

impl<V: BackendVm> BackendVm for Scheduled<V> {
    type Vcpu = Scheduled<V::Vcpu>;

    fn memory(&self) -> &GuestMemory {
        self.0.memory()
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        self.0.memory_mut()
    }

    fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), BackendError> {
        self.0.protect(range, perms)
    }

    fn cycle_frequency(&self) -> Result<u64, BackendError> {
        self.0.cycle_frequency()
    }

    fn doorbell(&self, port: u16) -> Result<Option<Arc<dyn Doorbell>>, BackendError> {
        self.0.doorbell(port)
    }

    fn create_vcpu(
        &self,
        state: VcpuState,
        handler: Arc<dyn ExitHandler>,
    ) -> Result<Self::Vcpu, BackendError> {
        self.0.create_vcpu(state, handler).map(Scheduled)
    }
}

impl<C: BackendVcpu> BackendVcpu for Scheduled<C> {
    fn run(&mut self, entry: VmEntry) -> Result<VmExit, BackendError> {
        let exit = self.0.run(entry)?;
        if exit == VmExit::Interrupted {
            thread::take_interrupts();
        }
        Ok(exit)
    }
}
