//! Between modes and the native backend: a vCPU that was interrupted lets the host take its
//! interrupt, and other threads their turn, before its mode hears of it.

use crate::thread;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use hypervisor::memory::{GuestMemory, Perms};
use hypervisor::vcpu::machine::{
    CpuidEntry, Event, Exception, LocalControllers, MachineBackend, MachineSpec, MachineVcpu,
    MachineVm,
};
use hypervisor::vcpu::{
    Backend, BackendCaps, BackendError, BackendVcpu, BackendVm, Doorbell, ExitHandler, VcpuState,
    VmEntry, VmExit, VmSpec,
};
use hypervisor::vm::Exits;

/// A backend, or a VM of it, whose vCPUs' threads give way at interrupts.
pub struct Scheduled<T>(pub T);

/// A vCPU whose thread gives way at interrupts.
pub struct ScheduledVcpu<C> {
    inner: C,
    /// An answer that it has not been given yet: it was interrupted before.
    held: Option<VmEntry>,
}

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
    type Vcpu = ScheduledVcpu<V::Vcpu>;

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
        let inner = self.0.create_vcpu(state, handler)?;
        Ok(ScheduledVcpu { inner, held: None })
    }
}

impl<C: BackendVcpu> BackendVcpu for ScheduledVcpu<C> {
    fn run(&mut self, entry: VmEntry) -> Result<VmExit, BackendError> {
        let entry = if self.held.is_some() { self.held.take().unwrap_or(entry) } else { entry };
        // It was kicked while it waited somewhere in the host.
        if thread::take_attention() {
            self.held = Some(entry);
            return Ok(VmExit::Interrupted);
        }
        // Not taken apart: exits are as large as they may be without being moved.
        let exit = self.inner.run(entry);
        if matches!(exit, Ok(VmExit::Interrupted)) {
            thread::take_interrupts();
            thread::take_attention();
        }
        exit
    }

    #[inline]
    fn take_answered(&mut self) -> Option<Exits> {
        self.inner.take_answered()
    }
}

impl<B: MachineBackend> MachineBackend for Scheduled<B> {
    fn create_machine(&self, spec: &MachineSpec<'_>) -> Result<Self::Vm, BackendError> {
        self.0.create_machine(spec).map(Scheduled)
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, BackendError> {
        self.0.supported_cpuid()
    }
}

impl<V: MachineVm> MachineVm for Scheduled<V> {
    fn local_controllers(&self) -> Option<Arc<dyn LocalControllers>> {
        self.0.local_controllers()
    }

    fn create_machine_vcpu(
        &self,
        index: u32,
        cpuid: &[CpuidEntry],
        state: VcpuState,
        handler: Arc<dyn ExitHandler>,
    ) -> Result<Self::Vcpu, BackendError> {
        let inner = self.0.create_machine_vcpu(index, cpuid, state, handler)?;
        Ok(ScheduledVcpu { inner, held: None })
    }
}

impl<C: MachineVcpu> MachineVcpu for ScheduledVcpu<C> {
    fn interruptible(&self) -> bool {
        self.inner.interruptible()
    }

    fn inject(&mut self, event: Event) {
        self.inner.inject(event);
    }

    fn raise(&mut self, exception: Exception) -> Result<(), BackendError> {
        self.inner.raise(exception)
    }

    fn request_window(&mut self, wanted: bool) {
        self.inner.request_window(wanted);
    }

    fn task_priority(&self) -> u8 {
        self.inner.task_priority()
    }

    fn set_task_priority(&mut self, priority: u8) {
        self.inner.set_task_priority(priority);
    }

    fn show_local_apic(&mut self, on: bool) {
        self.inner.show_local_apic(on);
    }

    fn set_deadline(&mut self, monotonic_ns: Option<u64>) {
        self.inner.set_deadline(monotonic_ns);
    }

    fn cycles(&self) -> u64 {
        self.inner.cycles()
    }

    fn reset(&mut self, state: &VcpuState) -> Result<(), BackendError> {
        // What asked before the reset is not answered after it.
        self.held = None;
        self.inner.reset(state)
    }

    fn restart(&mut self, state: &VcpuState) -> Result<(), BackendError> {
        self.held = None;
        self.inner.restart(state)
    }
}
