//! A PC: its RAM, its controllers and the making of its vCPUs.

use super::birth::Birth;
use super::kick::Home;
use super::local::{Controllers, PINS};
use super::slots;
use super::tsc::Tsc;
use super::vcpu::KvmPcVcpu;
use crate::arch;
use crate::error::refused;
use crate::machine::{Machine, Ram};
use hypervisor::memory::{GuestMemory, Perms};
use hypervisor::vcpu::machine::{CpuidEntry, LocalControllers, MachineSpec, MachineVm};
use hypervisor::vcpu::{BackendError, BackendVm, Doorbell, ExitHandler, VcpuState};
use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN, kvm_enable_cap,
};
use kvm_ioctls::{VcpuFd, VmFd};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Three pages for real mode on old Intel processors (KVM API §4.36 and §4.41), between the
/// local APIC and the firmware, where no PC has anything.
const IDENTITY_MAP: u64 = 0xfeff_c000;

/// A VM of [`super::KvmPcs`].
///
/// Drop order is the order of the fields, as in [`crate::KvmVm`].
pub struct KvmPcVm {
    made: Mutex<Made>,
    memory: GuestMemory,
    cycle_frequency: u64,
    controllers: Arc<Controllers>,
    first: Arc<Home>,
    vcpus: u32,
    machine: Arc<Machine>,
}

/// What of it exists already.
struct Made {
    /// The first vCPU's descriptor, until it is handed out: it tells the cycle counter's
    /// frequency.
    first: Option<VcpuFd>,
    /// Which vCPUs have been handed out.
    given: Vec<bool>,
    /// Whether the memory is in its place.
    slots: bool,
}

impl KvmPcVm {
    pub(super) fn new(kvm: &kvm_ioctls::Kvm, spec: &MachineSpec<'_>) -> Result<Self, BackendError> {
        let ram = Ram::new(slots::check(spec.ram)?)?;
        let memory = ram.spread_over(spec.ram)?;
        let vm = crate::vm::create(kvm)?;
        prepare(&vm)?;
        let tsc = Tsc::set(&vm, spec.tsc_khz)?;
        let machine = Arc::new(Machine::without_slots(vm, ram));
        let vcpu = machine.vm().create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
        let cycle_frequency = tsc.of(&vcpu)?;
        let first = Arc::new(Home::default());
        let controllers = Controllers::new(Arc::clone(&machine), Arc::clone(&first));
        let given = vec![false; usize::try_from(spec.vcpus).unwrap_or(0)];
        let made = Mutex::new(Made { first: Some(vcpu), given, slots: false });
        let controllers = Arc::new(controllers);
        Ok(Self { made, memory, cycle_frequency, controllers, first, vcpus: spec.vcpus, machine })
    }

    /// A vCPU's descriptor, each once.
    fn descriptor(&self, index: u32) -> Result<VcpuFd, BackendError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        match made.given.get_mut(at) {
            Some(given) if !*given => *given = true,
            Some(_) => return Err(BackendError::new(format!("vCPU {index} exists already"))),
            None => {
                return Err(BackendError::new(format!(
                    "there is no vCPU {index}: this VM has {}",
                    self.vcpus
                )));
            }
        }
        if !std::mem::replace(&mut made.slots, true) {
            slots::set(&self.machine, &self.memory)?;
        }
        match made.first.take_if(|_| index == 0) {
            Some(first) => Ok(first),
            None => self.machine.vm().create_vcpu(index.into()).map_err(refused("KVM_CREATE_VCPU")),
        }
    }
}

/// Says which controllers and which exits are wanted. Before there is a vCPU.
fn prepare(vm: &VmFd) -> Result<(), BackendError> {
    let enable = |cap, argument, what: &'static str| {
        let cap = kvm_enable_cap { cap, args: [argument, 0, 0, 0], ..Default::default() };
        vm.enable_cap(&cap).map_err(refused(what))
    };
    vm.set_identity_map_address(IDENTITY_MAP).map_err(refused("KVM_SET_IDENTITY_MAP_ADDR"))?;
    let tss = usize::try_from(IDENTITY_MAP + 0x1000).unwrap_or(0);
    vm.set_tss_address(tss).map_err(refused("KVM_SET_TSS_ADDR"))?;
    enable(KVM_CAP_SPLIT_IRQCHIP, PINS, "KVM_CAP_SPLIT_IRQCHIP")?;
    let unknown = u64::from(KVM_MSR_EXIT_REASON_UNKNOWN);
    enable(KVM_CAP_X86_USER_SPACE_MSR, unknown, "KVM_CAP_X86_USER_SPACE_MSR")
}

impl BackendVm for KvmPcVm {
    type Vcpu = KvmPcVcpu;

    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }

    /// KVM cannot take the right to execute or to read away; the guest's page tables do.
    fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), BackendError> {
        let page = crate::machine::PAGE;
        if !range.start.is_multiple_of(page) || !range.end.is_multiple_of(page) {
            return Err(BackendError::new("only whole pages can be protected"));
        }
        Ok(self.memory.protect(range, perms)?)
    }

    fn cycle_frequency(&self) -> Result<u64, BackendError> {
        Ok(self.cycle_frequency)
    }

    fn doorbell(&self, port: u16) -> Result<Option<Arc<dyn Doorbell>>, BackendError> {
        self.machine.doorbell(port)
    }

    /// The first vCPU, with all that KVM can virtualize.
    fn create_vcpu(
        &self,
        state: VcpuState,
        handler: Arc<dyn ExitHandler>,
    ) -> Result<KvmPcVcpu, BackendError> {
        let kvm = crate::Kvm::open()?;
        let cpuid = arch::supported_cpuid(kvm.fd())?;
        self.create_machine_vcpu(0, &cpuid, state, handler)
    }
}

impl MachineVm for KvmPcVm {
    fn local_controllers(&self) -> Option<Arc<dyn LocalControllers>> {
        Some(Arc::<Controllers>::clone(&self.controllers))
    }

    /// KVM answers no exit itself: `handler` is called by the loop. A vCPU but the first waits in
    /// the kernel for its start-up message, which gives it another state.
    fn create_machine_vcpu(
        &self,
        index: u32,
        cpuid: &[CpuidEntry],
        state: VcpuState,
        _handler: Arc<dyn ExitHandler>,
    ) -> Result<KvmPcVcpu, BackendError> {
        let fd = self.descriptor(index)?;
        arch::set_cpuid(&fd, cpuid)?;
        let birth = Birth::of(&fd)?;
        arch::set_machine_state(&fd, &state)?;
        let home = if index == 0 { Arc::clone(&self.first) } else { Arc::default() };
        Ok(KvmPcVcpu::new(fd, birth, home, Arc::clone(&self.machine)))
    }
}
