//! A VM: memory in one slot, and the one vCPU that modes without an interrupt controller need.
//!
//! The vCPU's descriptor is made with the VM, because KVM tells the cycle counter's frequency
//! only of a vCPU; [`BackendVm::create_vcpu`] gives it its state and hands it out.

use crate::error::{errno, refused};
use crate::machine::{Machine, Ram};
use crate::{KvmVcpu, arch};
use hypervisor::memory::{GuestMemory, Perms};
use hypervisor::vcpu::{BackendError, BackendVm, Doorbell, ExitHandler, VcpuState, VmSpec};
use kvm_bindings::{KVM_CAP_DISABLE_QUIRKS2, KVM_X86_QUIRK_FIX_HYPERCALL_INSN, kvm_enable_cap};
use kvm_ioctls::{VcpuFd, VmFd};
use rustix::io::Errno;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A VM of [`crate::Kvm`].
///
/// Drop order is the order of the fields: the vCPU that was not handed out, the table that
/// points into the memory, then the machine, which closes the VM before it unmaps its memory.
pub struct KvmVm {
    vcpu: Mutex<Option<VcpuFd>>,
    memory: GuestMemory,
    cycle_frequency: u64,
    probed: bool,
    machine: Arc<Machine>,
}

impl KvmVm {
    pub(crate) fn new(kvm: &kvm_ioctls::Kvm, spec: VmSpec) -> Result<Self, BackendError> {
        let ram = Ram::new(spec.memory)?;
        let memory = ram.as_guest_memory()?;
        let vm = create(kvm)?;
        keep_hypercall_instructions(&vm);
        let machine = Arc::new(Machine::new(vm, ram)?);
        let vcpu = machine.vm().create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
        let cycle_frequency = arch::cycle_frequency(&vcpu)?;
        arch::set_features(kvm, &vcpu)?;
        let vcpu = Mutex::new(Some(vcpu));
        Ok(Self { vcpu, memory, cycle_frequency, probed: false, machine })
    }

    /// Runs a few instructions to see whether KVM runs 64-bit code with SSE at hardware speed.
    /// Before memory is filled and before the vCPU is made: memory is zero again afterwards, and
    /// the vCPU as new.
    ///
    /// # Errors
    /// If it does not. The text says why, for `-v`.
    pub fn probe(&mut self) -> Result<(), BackendError> {
        let vcpu = self.vcpu.get_mut().unwrap_or_else(PoisonError::into_inner);
        let vcpu = vcpu.as_mut().ok_or_else(|| BackendError::new("the vCPU is already in use"))?;
        self.probed = true;
        arch::probe(vcpu, &self.memory, self.cycle_frequency)
    }
}

/// KVM_CREATE_VM, which a signal interrupts, and which is then made again.
pub(crate) fn create(kvm: &kvm_ioctls::Kvm) -> Result<VmFd, BackendError> {
    loop {
        match kvm.create_vm() {
            Err(error) if errno(&error) == Errno::INTR => {}
            other => return other.map_err(refused("KVM_CREATE_VM")),
        }
    }
}

/// Makes the hypercall instruction of the other vendor (`vmcall` on AMD) an invalid opcode, as the
/// hardware has it. KVM would rewrite it in the guest's text, which is read-only. A Linux before
/// 5.19 cannot be told; there the guest ends with a translation fault.
fn keep_hypercall_instructions(vm: &VmFd) {
    let args = [u64::from(KVM_X86_QUIRK_FIX_HYPERCALL_INSN), 0, 0, 0];
    let cap = KVM_CAP_DISABLE_QUIRKS2;
    let _ = vm.enable_cap(&kvm_enable_cap { cap, args, ..Default::default() });
}

impl BackendVm for KvmVm {
    type Vcpu = KvmVcpu;

    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }

    fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), BackendError> {
        self.machine.ram().protect(range.clone(), perms)?;
        Ok(self.memory.protect(range, perms)?)
    }

    fn cycle_frequency(&self) -> Result<u64, BackendError> {
        Ok(self.cycle_frequency)
    }

    fn doorbell(&self, port: u16) -> Result<Option<Arc<dyn Doorbell>>, BackendError> {
        self.machine.doorbell(port)
    }

    /// KVM answers no exit itself: `handler` is called by the loop, [`hypervisor::vcpu::run`].
    fn create_vcpu(
        &self,
        state: VcpuState,
        _handler: Arc<dyn ExitHandler>,
    ) -> Result<KvmVcpu, BackendError> {
        let fd = self.vcpu.lock().unwrap_or_else(PoisonError::into_inner).take();
        let fd = fd.ok_or_else(|| {
            BackendError::new("this VM has its vCPU already: the kvm backend has one per VM")
        })?;
        if self.probed {
            arch::reset_fpu(&fd)?;
        }
        arch::set_state(&fd, &state)?;
        Ok(KvmVcpu::new(fd, self.memory.clone(), Arc::clone(&self.machine)))
    }
}
