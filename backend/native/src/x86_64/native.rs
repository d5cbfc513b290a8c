//! The backend: which vendor's virtualization the processor has, and the seam's traits over it.

use super::cpuid::{Cpuid, supported};
use super::processor::cpuid;
use super::svm::{self, Svm};
use super::vcpu::Vcpu;
use super::vm::{Kind, MAX_VCPUS, VmHandle, from_zero};
use crate::Platform;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use hypervisor::memory::{Gpa, GuestMemory, Perms};
use hypervisor::vcpu::machine::{
    CpuidEntry, Event, Exception, MachineBackend, MachineSpec, MachineVcpu, MachineVm,
};
use hypervisor::vcpu::{
    Backend, BackendCaps, BackendError, BackendVcpu, BackendVm, ExitHandler, VcpuState, VmEntry,
    VmExit, VmSpec,
};
use hypervisor::vm::Exits;

/// vCPUs by the processor's own virtualization.
pub struct Native<P: Platform> {
    platform: &'static P,
    vendor: Shared<P>,
}

/// What a vendor's vCPUs share.
enum Shared<P: Platform> {
    Svm(Arc<svm::Shared<P>>),
}

/// A VM of [`Native`].
pub struct NativeVm<P: Platform>(VmOf<P>);

enum VmOf<P: Platform> {
    Svm(VmHandle<P, Svm<P>>),
}

/// A vCPU of a [`NativeVm`].
pub struct NativeVcpu<P: Platform>(VcpuOf<P>);

enum VcpuOf<P: Platform> {
    Svm(Vcpu<P, Svm<P>>),
}

/// The same backend, for another mode: both share what their guests compete for.
impl<P: Platform> Clone for Native<P> {
    fn clone(&self) -> Self {
        let Shared::Svm(shared) = &self.vendor;
        Self { platform: self.platform, vendor: Shared::Svm(Arc::clone(shared)) }
    }
}

impl<P: Platform> Native<P> {
    /// Looks whether this processor can run guests. Each CPU is made ready when it first runs one.
    ///
    /// # Errors
    /// If it cannot: why, and what to do.
    pub fn new(platform: &'static P) -> Result<Self, BackendError> {
        let features = svm::find()?;
        let shared = svm::Shared::new(platform, features).ok_or_else(|| {
            BackendError::new("this machine has no memory left for the backend's own tables")
        })?;
        Ok(Self { platform, vendor: Shared::Svm(Arc::new(shared)) })
    }

    fn create(
        &self,
        kind: Kind,
        ranges: &[Range<u64>],
        tsc_khz: Option<u32>,
    ) -> Result<NativeVm<P>, BackendError> {
        let Shared::Svm(shared) = &self.vendor;
        let handle = VmHandle::new(self.platform, shared, kind, ranges, tsc_khz)?;
        Ok(NativeVm(VmOf::Svm(handle)))
    }
}

impl<P: Platform> Backend for Native<P> {
    type Vm = NativeVm<P>;

    fn name(&self) -> &'static str {
        match self.vendor {
            Shared::Svm(_) => "svm",
        }
    }

    fn capabilities(&self) -> BackendCaps {
        BackendCaps {
            doorbells: false,
            answers_locally: false,
            lowest_gpa: Gpa(0),
            max_vcpus: MAX_VCPUS,
        }
    }

    fn create_vm(&self, spec: VmSpec) -> Result<NativeVm<P>, BackendError> {
        self.create(Kind::Unikernel, &from_zero(spec.memory), None)
    }
}

impl<P: Platform> MachineBackend for Native<P> {
    fn create_machine(&self, spec: &MachineSpec<'_>) -> Result<NativeVm<P>, BackendError> {
        if spec.vcpus > MAX_VCPUS {
            return Err(BackendError::new(alloc::format!(
                "{} vCPUs: a VM has at most {MAX_VCPUS}",
                spec.vcpus
            )));
        }
        self.create(Kind::Machine, spec.ram, spec.tsc_khz)
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, BackendError> {
        Ok(supported(cpuid, self.platform.xcr0()))
    }
}

impl<P: Platform> BackendVm for NativeVm<P> {
    type Vcpu = NativeVcpu<P>;

    fn memory(&self) -> &GuestMemory {
        let VmOf::Svm(handle) = &self.0;
        &handle.memory
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        let VmOf::Svm(handle) = &mut self.0;
        &mut handle.memory
    }

    fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), BackendError> {
        let VmOf::Svm(handle) = &mut self.0;
        handle.protect(range, perms)
    }

    fn cycle_frequency(&self) -> Result<u64, BackendError> {
        let VmOf::Svm(handle) = &self.0;
        Ok(handle.vm.tsc.hz)
    }

    /// Exits are answered by the loop, which is in the same kernel.
    fn create_vcpu(
        &self,
        state: VcpuState,
        _handler: Arc<dyn ExitHandler>,
    ) -> Result<NativeVcpu<P>, BackendError> {
        let VmOf::Svm(handle) = &self.0;
        handle.vm.take_number(0)?;
        let cpuid = handle.vm.default_cpuid();
        Ok(NativeVcpu(VcpuOf::Svm(Vcpu::new(&handle.vm, cpuid, &state)?)))
    }
}

impl<P: Platform> MachineVm for NativeVm<P> {
    fn create_machine_vcpu(
        &self,
        index: u32,
        cpuid: &[CpuidEntry],
        state: VcpuState,
        _handler: Arc<dyn ExitHandler>,
    ) -> Result<NativeVcpu<P>, BackendError> {
        let VmOf::Svm(handle) = &self.0;
        handle.vm.take_number(index)?;
        Ok(NativeVcpu(VcpuOf::Svm(Vcpu::new(&handle.vm, Cpuid::new(cpuid), &state)?)))
    }
}

impl<P: Platform> BackendVcpu for NativeVcpu<P> {
    #[inline]
    fn run(&mut self, entry: VmEntry) -> Result<VmExit, BackendError> {
        let VcpuOf::Svm(vcpu) = &mut self.0;
        vcpu.run(entry)
    }

    #[inline]
    fn take_answered(&mut self) -> Option<Exits> {
        let VcpuOf::Svm(vcpu) = &mut self.0;
        vcpu.take_answered()
    }
}

impl<P: Platform> MachineVcpu for NativeVcpu<P> {
    fn interruptible(&self) -> bool {
        let VcpuOf::Svm(vcpu) = &self.0;
        vcpu.interruptible()
    }

    fn inject(&mut self, event: Event) {
        let VcpuOf::Svm(vcpu) = &mut self.0;
        vcpu.inject(event);
    }

    fn raise(&mut self, exception: Exception) -> Result<(), BackendError> {
        let VcpuOf::Svm(vcpu) = &mut self.0;
        vcpu.raise_from_outside(exception)
    }

    fn request_window(&mut self, wanted: bool) {
        let VcpuOf::Svm(vcpu) = &mut self.0;
        vcpu.request_window(wanted);
    }

    fn task_priority(&self) -> u8 {
        let VcpuOf::Svm(vcpu) = &self.0;
        vcpu.task_priority()
    }

    fn set_task_priority(&mut self, priority: u8) {
        let VcpuOf::Svm(vcpu) = &mut self.0;
        vcpu.set_task_priority(priority);
    }

    fn show_local_apic(&mut self, on: bool) {
        let VcpuOf::Svm(vcpu) = &mut self.0;
        vcpu.show_local_apic(on);
    }

    fn set_deadline(&mut self, monotonic_ns: Option<u64>) {
        let VcpuOf::Svm(vcpu) = &mut self.0;
        vcpu.set_deadline(monotonic_ns);
    }

    fn cycles(&self) -> u64 {
        let VcpuOf::Svm(vcpu) = &self.0;
        vcpu.cycles()
    }

    fn reset(&mut self, state: &VcpuState) -> Result<(), BackendError> {
        let VcpuOf::Svm(vcpu) = &mut self.0;
        vcpu.reset(state);
        Ok(())
    }

    fn restart(&mut self, state: &VcpuState) -> Result<(), BackendError> {
        let VcpuOf::Svm(vcpu) = &mut self.0;
        vcpu.restart(state);
        Ok(())
    }
}
