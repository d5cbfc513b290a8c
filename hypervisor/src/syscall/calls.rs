//! What the system calls do: [`Calls`], and [`Syscalls`], which does it with a [`Hypervisor`].

use super::CallError;
use super::abi::ModeFlags;
use crate::config::{VcpuConfig, VmConfig};
use crate::host::{Blob, HostError};
use crate::mode::{Hypervisor, MemoryRegion, Vcpu, VcpuExit, VcpuId, VmInfo};
use crate::sync::{Mutex, RwLock};
use crate::vm::VmId;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;

/// The system calls, their arguments checked.
pub trait Calls {
    /// Which modes have a backend.
    fn query_modes(&self) -> ModeFlags;

    /// Makes a VM.
    ///
    /// # Errors
    /// [`CallError`], as all that follow.
    fn vm_create(&self, config: VmConfig) -> Result<VmId, CallError>;

    /// Lets a VM run.
    ///
    /// # Errors
    /// [`CallError`].
    fn vm_start(&self, vm: VmId) -> Result<(), CallError>;

    /// Lets it run no more.
    ///
    /// # Errors
    /// [`CallError`].
    fn vm_stop(&self, vm: VmId) -> Result<(), CallError>;

    /// Gives it back, with its vCPUs.
    ///
    /// # Errors
    /// [`CallError`].
    fn vm_destroy(&self, vm: VmId) -> Result<(), CallError>;

    /// What is known of it.
    ///
    /// # Errors
    /// [`CallError`].
    fn vm_info(&self, vm: VmId) -> Result<VmInfo, CallError>;

    /// Makes a vCPU.
    ///
    /// # Errors
    /// [`CallError`].
    fn vcpu_create(&self, vm: VmId, config: VcpuConfig) -> Result<VcpuId, CallError>;

    /// Runs a vCPU in the calling thread.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::Running`] if another thread does.
    fn vcpu_run(&self, vm: VmId, vcpu: VcpuId) -> Result<VcpuExit, CallError>;

    /// Adds memory.
    ///
    /// # Errors
    /// [`CallError`].
    fn map_memory(&self, vm: VmId, region: MemoryRegion) -> Result<(), CallError>;

    /// Injects an interrupt.
    ///
    /// # Errors
    /// [`CallError`].
    fn inject_interrupt(&self, vm: VmId, vcpu: VcpuId, vector: u32) -> Result<(), CallError>;
}

/// Opens images, for [`Hypervisor::resolve`].
pub trait Images: Send + Sync {
    /// Opens one.
    ///
    /// # Errors
    /// The host's.
    fn open(&self, name: &str) -> Result<Box<dyn Blob>, HostError>;
}

/// A vCPU that several threads may name and one may run. The lock is only ever tried: a thread
/// that would have to wait is told so.
type Slot = Arc<Mutex<Box<dyn Vcpu>>>;

/// The system calls over a hypervisor.
pub struct Syscalls<I> {
    hypervisor: Hypervisor,
    images: I,
    /// Dropped before a slot is tried.
    vcpus: RwLock<BTreeMap<(VmId, VcpuId), Slot>>,
}

impl<I: Images> Syscalls<I> {
    /// Over this hypervisor, whose modes have been added.
    pub fn new(hypervisor: Hypervisor, images: I) -> Self {
        Self { hypervisor, images, vcpus: RwLock::new(BTreeMap::new()) }
    }

    /// The hypervisor.
    pub fn hypervisor(&self) -> &Hypervisor {
        &self.hypervisor
    }
}

impl<I: Images> Calls for Syscalls<I> {
    fn query_modes(&self) -> ModeFlags {
        self.hypervisor.available().into_iter().map(ModeFlags::from).collect()
    }

    fn vm_create(&self, config: VmConfig) -> Result<VmId, CallError> {
        // Only where nothing else says the mode is the image looked at.
        let looked_at = config.boot_image().filter(|_| config.explicit_mode().is_none());
        let image = looked_at.map(|name| self.images.open(name)).transpose()?;
        Ok(self.hypervisor.create_vm(config, image.as_deref())?)
    }

    fn vm_start(&self, vm: VmId) -> Result<(), CallError> {
        Ok(self.hypervisor.mode_of(vm)?.start_vm(vm)?)
    }

    fn vm_stop(&self, vm: VmId) -> Result<(), CallError> {
        Ok(self.hypervisor.mode_of(vm)?.stop_vm(vm)?)
    }

    fn vm_destroy(&self, vm: VmId) -> Result<(), CallError> {
        self.hypervisor.mode_of(vm)?.destroy_vm(vm)?;
        let all = (vm, VcpuId(0))..=(vm, VcpuId(u32::MAX));
        let mut vcpus = self.vcpus.write();
        let keys: alloc::vec::Vec<_> = vcpus.range(all).map(|(key, _)| *key).collect();
        let gone: alloc::vec::Vec<_> = keys.iter().filter_map(|key| vcpus.remove(key)).collect();
        drop(vcpus);
        // What they held is given back with no lock held.
        drop(gone);
        Ok(())
    }

    fn vm_info(&self, vm: VmId) -> Result<VmInfo, CallError> {
        Ok(self.hypervisor.mode_of(vm)?.vm(vm)?)
    }

    fn vcpu_create(&self, vm: VmId, config: VcpuConfig) -> Result<VcpuId, CallError> {
        let vcpu = self.hypervisor.mode_of(vm)?.create_vcpu(vm, config)?;
        let id = vcpu.id();
        let earlier = self.vcpus.write().insert((vm, id), Arc::new(Mutex::new(vcpu)));
        drop(earlier);
        // If the VM was destroyed meanwhile, nobody else would ever remove it.
        if self.hypervisor.mode_of(vm).is_err() {
            let late = self.vcpus.write().remove(&(vm, id));
            drop(late);
            return Err(CallError::NoSuchVcpu);
        }
        Ok(id)
    }

    fn vcpu_run(&self, vm: VmId, vcpu: VcpuId) -> Result<VcpuExit, CallError> {
        let slot = self.vcpus.read().get(&(vm, vcpu)).cloned().ok_or(CallError::NoSuchVcpu)?;
        let mut vcpu = slot.try_lock().ok_or(CallError::Running)?;
        Ok(vcpu.run()?)
    }

    fn map_memory(&self, vm: VmId, region: MemoryRegion) -> Result<(), CallError> {
        Ok(self.hypervisor.mode_of(vm)?.map_memory(vm, region)?)
    }

    fn inject_interrupt(&self, vm: VmId, vcpu: VcpuId, vector: u32) -> Result<(), CallError> {
        Ok(self.hypervisor.mode_of(vm)?.inject_interrupt(vm, vcpu, vector)?)
    }
}
