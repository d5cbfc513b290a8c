//! Whole PCs: several vCPUs, RAM around the hole below 4 GiB, interrupts.
//!
//! The local APICs are KVM's own, the rest of a PC is the mode's: KVM's "split" interrupt
//! controller (KVM API §7.5, `KVM_CAP_SPLIT_IRQCHIP`). So interrupts go in as messages, a vCPU
//! that halts or waits for its start-up message stays in the kernel, and an access to a
//! model-specific register that KVM does not know comes out ([`VmExit::ReadMsr`]).
//!
//! A vCPU is made to leave its guest by the signal [`kick_signal`], sent to the thread that runs
//! it; one that comes while the thread is elsewhere ends its next run. Making the first VM
//! installs its handler.
//!
//! [`VmExit::ReadMsr`]: hypervisor::vcpu::VmExit::ReadMsr

mod birth;
mod deadline;
mod ioctl;
mod kick;
mod local;
mod slots;
mod tsc;
mod vcpu;
mod vm;

pub use kick::kick_signal;
pub use vcpu::KvmPcVcpu;
pub use vm::KvmPcVm;

use crate::Kvm;
use crate::arch;
use hypervisor::memory::Gpa;
use hypervisor::vcpu::machine::{CpuidEntry, MachineBackend, MachineSpec};
use hypervisor::vcpu::{Backend, BackendCaps, BackendError, VmSpec};
use kvm_ioctls::Cap;

/// `ioctl`s after the first instruction of a guest, for who writes a system call filter, each
/// with its reason.
pub const IOCTLS: &[(u64, &str)] = ioctl::USED;

/// Linux KVM, for whole PCs.
pub struct KvmPcs {
    kvm: Kvm,
}

impl KvmPcs {
    /// Over an open KVM.
    ///
    /// # Errors
    /// If this KVM lacks what a PC needs: Linux 5.10 has all of it.
    pub fn new(kvm: Kvm) -> Result<Self, BackendError> {
        let needed = [
            (Cap::SplitIrqchip, "split interrupt controllers"),
            (Cap::X86UserSpaceMsr, "exits for unknown model-specific registers"),
            (Cap::ReadonlyMem, "read-only memory"),
            (Cap::SignalMsi, "message-signalled interrupts"),
            (Cap::ImmediateExit, "immediate exits"),
        ];
        match needed.into_iter().find(|(cap, _)| !kvm.fd().check_extension(*cap)) {
            None => Ok(Self { kvm }),
            Some((_, what)) => Err(BackendError::new(format!(
                "this KVM has no {what}: whole machines need Linux 5.10 or later; use \
                 --backend=qemu"
            ))),
        }
    }

    /// The KVM beneath.
    pub fn kvm(&self) -> &Kvm {
        &self.kvm
    }
}

impl Backend for KvmPcs {
    type Vm = KvmPcVm;

    fn name(&self) -> &'static str {
        "kvm"
    }

    fn capabilities(&self) -> BackendCaps {
        let most = u32::try_from(self.kvm.fd().get_max_vcpus()).unwrap_or(1);
        BackendCaps {
            doorbells: true,
            answers_locally: false,
            lowest_gpa: Gpa(0),
            // Local APIC IDs of 8 bits, of which the last is the broadcast.
            max_vcpus: most.min(255),
        }
    }

    fn create_vm(&self, spec: VmSpec) -> Result<KvmPcVm, BackendError> {
        let ram = 0..spec.memory;
        let ram = std::slice::from_ref(&ram);
        self.create_machine(&MachineSpec { ram, vcpus: 1, tsc_khz: None })
    }
}

impl MachineBackend for KvmPcs {
    fn create_machine(&self, spec: &MachineSpec<'_>) -> Result<KvmPcVm, BackendError> {
        let most = self.capabilities().max_vcpus;
        if spec.vcpus > most {
            let asked = spec.vcpus;
            return Err(BackendError::new(format!(
                "{asked} vCPUs are more than the {most} that this KVM can give a VM: ask for fewer"
            )));
        }
        kick::install()?;
        KvmPcVm::new(self.kvm.fd(), spec)
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, BackendError> {
        let mut rows = arch::supported_cpuid(self.kvm.fd())?;
        if self.kvm.fd().check_extension(Cap::TscDeadlineTimer) {
            // KVM itself does not list it, because it depends on where the local APICs are.
            let features = rows.iter_mut().find(|row| row.leaf == 1);
            features.into_iter().for_each(|row| row.registers[2] |= TSC_DEADLINE);
        }
        Ok(rows)
    }
}

/// CPUID leaf 1, ECX: the local APIC's timer has a TSC-deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
