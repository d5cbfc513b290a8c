//! Type 1 mode behind [`HypervisorMode`]: whole machines on any backend that can run them, with
//! the resources of any host.
//!
//! Order: as [`crate::mode`] says; every vCPU is made and run by a thread of its own. A guest that
//! turns its machine off ends every vCPU's run; a VM that is started again then starts anew, one
//! that was stopped goes on where it was.

mod build;
mod error;
mod vcpu;

#[cfg(test)]
mod tests;

pub use error::Type1Error;

use super::apic::{Delivery, Destination, Interrupt};
use super::host::Type1Host;
use super::machine::Machine;
use super::processor::Processor;
use crate::config::{VcpuConfig, VmConfig};
use crate::device::MsiMessage;
use crate::mode::{
    HypervisorMode, MemoryRegion, ModeCapabilities, ModeConfig, ModeError, ModeKind, Vcpu, VcpuId,
    VmInfo,
};
use crate::sync::Mutex;
use crate::vcpu::Backend;
use crate::vcpu::machine::MachineBackend;
use crate::vm::{Vm, VmId, VmRequest, Vms};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use vcpu::Type1Vcpu;

/// Type 1 mode on a backend and a host.
pub struct Type1<B: Backend, H: Type1Host> {
    vms: Arc<Vms<Inner<B>>>,
    backend: B,
    host: Arc<H>,
}

/// What Type 1 mode is lent.
pub struct Type1Lent<B, H> {
    /// Runs the vCPUs.
    pub backend: B,
    /// Opens what descriptions name.
    pub host: H,
}

/// What the mode keeps of a VM.
struct Inner<B: Backend> {
    /// Processors that nobody has taken yet. A leaf lock.
    ready: Mutex<Vec<Processor<B::Vm>>>,
    vcpus: u32,
    /// Gone with the VM's destruction; vCPU handles keep it alive.
    machine: Mutex<Option<Arc<Machine<B::Vm>>>>,
}

impl<B: MachineBackend, H: Type1Host> Type1<B, H> {
    fn machine(&self, vm: VmId) -> Result<Arc<Machine<B::Vm>>, ModeError> {
        let machine = self.vms.get(vm)?.inner.machine.lock().clone();
        Ok(machine.ok_or(crate::vm::VmError::NoSuchVm(vm))?)
    }

    /// Presses the VM's power button, on which a guest may turn itself off.
    ///
    /// # Errors
    /// [`ModeError::Vm`].
    pub fn press_power_button(&self, vm: VmId) -> Result<(), ModeError> {
        self.machine(vm)?.press_power_button();
        Ok(())
    }
}

impl<B, H> HypervisorMode for Type1<B, H>
where
    B: MachineBackend + 'static,
    B::Vm: 'static,
    H: Type1Host + 'static,
{
    type Lent = Type1Lent<B, H>;

    fn init(config: &ModeConfig, lent: Self::Lent) -> Result<Self, ModeError> {
        let vms = Arc::new(Vms::new(config.ledger.clone(), config.clock.clone()));
        Ok(Self { vms, backend: lent.backend, host: Arc::new(lent.host) })
    }

    fn capabilities(&self) -> ModeCapabilities {
        ModeCapabilities {
            mode: ModeKind::Type1,
            backend: self.backend.name(),
            max_vcpus: self.backend.capabilities().max_vcpus.min(build::MAX_VCPUS),
            max_memory: *crate::config::MEMORY_SIZES.end(),
            map_memory: false,
            interrupts: true,
            nested: false,
        }
    }

    fn create_vm(&self, config: VmConfig) -> Result<VmId, ModeError> {
        config.validate(ModeKind::Type1)?;
        if config.type1().nested {
            let instead = "a guest cannot itself be a hypervisor for now; write nested = false";
            return Err(unsupported("nested virtualization", instead));
        }
        let most = self.capabilities().max_vcpus;
        if config.vcpus > most {
            let vcpus = build::too_many(config.vcpus, most);
            return Err(vcpus.into());
        }
        let request =
            VmRequest { name: config.name.clone(), memory: config.memory, vcpus: config.vcpus };
        let build = |id| self.build(id, &config).map_err(ModeError::build);
        Ok(self.vms.create(request, build)?.id())
    }

    fn start_vm(&self, vm: VmId) -> Result<(), ModeError> {
        let machine = self.machine(vm)?;
        let (_, run) = self.vms.start(vm)?;
        #[cfg(test)]
        crate::mode::races::let_others_in();
        machine.board.power.start(run);
        Ok(())
    }

    fn stop_vm(&self, vm: VmId) -> Result<(), ModeError> {
        let machine = self.machine(vm)?;
        let (_, run) = self.vms.stop(vm)?;
        machine.board.power.stop(run);
        Ok(())
    }

    fn destroy_vm(&self, vm: VmId) -> Result<(), ModeError> {
        let vm = self.vms.destroy(vm)?;
        let ready = core::mem::take(&mut *vm.inner.ready.lock());
        drop(ready);
        let machine = vm.inner.machine.lock().take();
        drop(machine);
        Ok(())
    }

    fn create_vcpu(&self, vm: VmId, config: VcpuConfig) -> Result<Box<dyn Vcpu>, ModeError> {
        let vm = self.vms.get(vm)?;
        let taken = {
            let mut ready = vm.inner.ready.lock();
            let place = ready.iter().position(|processor| processor.index() == config.index);
            place.map(|place| ready.swap_remove(place))
        };
        let Some(processor) = taken else {
            let (vcpu, vcpus) = (VcpuId(config.index), vm.inner.vcpus);
            return Err(ModeError::NoSuchVcpu { vm: vm.id(), vcpu, vcpus });
        };
        Ok(Box::new(Type1Vcpu::new(vm, self.vms.clone(), processor)))
    }

    fn map_memory(&self, vm: VmId, _: MemoryRegion) -> Result<(), ModeError> {
        self.vms.get(vm)?;
        Err(unsupported("memory to add", "a machine has what it was started with; ask for more"))
    }

    fn inject_interrupt(&self, vm: VmId, vcpu: VcpuId, vector: u32) -> Result<(), ModeError> {
        let machine = self.machine(vm)?;
        let vcpus = self.vms.get(vm)?.inner.vcpus;
        let fits = u8::try_from(vector).ok().filter(|vector| *vector >= 16);
        let Some(vector) = fits else {
            return Err(unsupported("such vector", "inject one from 16 to 255"));
        };
        if vcpu.0 >= vcpus {
            return Err(ModeError::NoSuchVcpu { vm, vcpu, vcpus });
        }
        if machine.local_apics {
            machine.bus.deliver(&Interrupt {
                destination: Destination::Physical(vcpu.0),
                delivery: Delivery::Fixed,
                vector,
                level: false,
            });
        } else {
            let address = 0xfee0_0000 | u64::from(vcpu.0) << 12;
            let message = MsiMessage { device: 0, address, data: vector.into() };
            machine.board.devices.lines.msi(message);
        }
        Ok(())
    }

    fn vm(&self, vm: VmId) -> Result<VmInfo, ModeError> {
        Ok(info(&*self.vms.get(vm)?))
    }

    fn vms(&self) -> Vec<VmInfo> {
        self.vms.all().iter().map(|vm| info(vm)).collect()
    }
}

fn unsupported(what: &'static str, instead: &'static str) -> ModeError {
    ModeError::Unsupported { mode: ModeKind::Type1, what, instead }
}

fn info<T>(vm: &Vm<T>) -> VmInfo {
    VmInfo { id: vm.id(), mode: ModeKind::Type1, name: vm.name().into(), snapshot: vm.snapshot() }
}
