//! HVT mode behind [`HypervisorMode`]: unikernels on any backend, with the resources of any host.
//!
//! Order: as [`crate::mode`] says. [`Hvt`] turns a [`VmConfig`] into a [`Guest`], by way of the
//! tender; the host behind it is a [`HvtHost`]. A VM has one vCPU, which owns the guest: it can
//! move to a thread of its own, and what a destroyed VM had is gone when that handle is.

mod attach;
mod control;
mod error;
mod host;
#[cfg(test)]
mod tests;
mod vcpu;

pub use error::HvtError;
pub use host::{HvtHost, HvtSession, Kick, Lent, Task};

use super::arch::GuestArch;
use super::cmdline::CommandLine;
use super::image::Image;
use super::layout::{Layout, MAX_MEMORY};
use super::manifest::{MAX_BYTES, Manifest};
use super::service::Resources;
use super::tender::{Guest, GuestSpec};
use crate::config::{ManifestSource, VcpuConfig, VmConfig};
use crate::host::Blob;
use crate::memory::GuestSlice;
use crate::mode::{
    HypervisorMode, LendError, MemoryRegion, ModeCapabilities, ModeConfig, ModeError, ModeKind,
    Vcpu, VcpuId, VmInfo,
};
use crate::sync::Mutex;
use crate::vcpu::Backend;
use crate::vm::{Vm, VmId, VmRequest, Vms};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use control::Control;
use vcpu::HvtVcpu;

/// HVT mode on a backend and a host.
pub struct Hvt<B: Backend, H: HvtHost> {
    vms: Arc<Vms<Inner<B>>>,
    lent: HvtLent<B, H>,
}

/// What HVT mode is lent.
pub struct HvtLent<B, H> {
    /// Runs the vCPUs.
    pub backend: B,
    /// Opens what descriptions name.
    pub host: H,
    /// The processor that the backend runs guests of.
    pub arch: GuestArch,
}

/// What the mode keeps of a VM.
struct Inner<B: Backend> {
    control: Arc<Control>,
    /// Until its vCPU is made, or the VM destroyed. A leaf lock.
    ready: Mutex<Option<Ready<B>>>,
}

/// A guest that has not run yet.
struct Ready<B: Backend> {
    guest: Guest<B::Vm>,
    session: Box<dyn HvtSession>,
}

impl<B: Backend, H: HvtHost> Hvt<B, H> {
    fn build(&self, id: VmId, config: &VmConfig) -> Result<Inner<B>, HvtError> {
        let hvt = config.hvt();
        let path = config.boot_image().ok_or(HvtError::NoImage)?;
        let blob = self.open(path)?;
        let named = |error| HvtError::Image { path: path.into(), error };
        let mut image = Image::read(&*blob, self.lent.arch).map_err(named)?;
        if let ManifestSource::Path(path) = &hvt.manifest {
            image.manifest = self.manifest(path)?;
        }
        let mut session = self.lent.host.session(id, &config.name).map_err(LendError::Session)?;
        let devices = attach::attach(&hvt.resources, &mut image.manifest, &mut *session)?;
        let lent = session.lend().map_err(LendError::Session)?;
        let control = Arc::new(Control::new(lent.kick));
        let with_ring =
            hvt.net_ring && image.manifest.has_net() && self.lent.backend.capabilities().doorbells;
        let spec = GuestSpec {
            image: &image,
            blob: &*blob,
            layout: Layout::new(config.memory, with_ring)?,
            cmdline: &CommandLine::new(Some(hvt.cmdline).filter(|line| !line.is_empty()))?,
            ring_without_doorbell: false,
        };
        let resources =
            Resources { console: lent.console, clock: lent.clock, wait: lent.wait, devices };
        let events = Arc::<Control>::clone(&control);
        let guest = Guest::new(&self.lent.backend, &spec, resources, events, None)?;
        Ok(Inner { control, ready: Mutex::new(Some(Ready { guest, session })) })
    }

    fn open(&self, path: &str) -> Result<Box<dyn Blob>, HvtError> {
        let named = |error| LendError::Resource { what: "image", name: path.into(), error };
        Ok(self.lent.host.open(path).map_err(named)?)
    }

    /// A manifest in a file of its own, in binary form, as it would be in the image's note.
    fn manifest(&self, path: &str) -> Result<Manifest, HvtError> {
        let blob = self.open(path)?;
        // One byte more than the longest, so that what is too long is not cut to fit.
        let length = usize::try_from(blob.len()).unwrap_or(usize::MAX).min(MAX_BYTES + 1);
        let mut bytes = vec![0; length];
        let named = |error| LendError::Resource { what: "manifest", name: path.into(), error };
        let found = blob.read_at(0, GuestSlice::from_host(&mut bytes)).map_err(named)?;
        bytes.truncate(found);
        Manifest::parse(&bytes).map_err(|error| HvtError::Manifest { path: path.into(), error })
    }
}

impl<B, H> HypervisorMode for Hvt<B, H>
where
    B: Backend + 'static,
    B::Vm: 'static,
    H: HvtHost + 'static,
{
    type Lent = HvtLent<B, H>;

    fn init(config: &ModeConfig, lent: Self::Lent) -> Result<Self, ModeError> {
        let vms = Arc::new(Vms::new(config.ledger.clone(), config.clock.clone()));
        Ok(Self { vms, lent })
    }

    fn capabilities(&self) -> ModeCapabilities {
        ModeCapabilities {
            mode: ModeKind::Hvt,
            backend: self.lent.backend.name(),
            max_vcpus: 1,
            max_memory: MAX_MEMORY,
            map_memory: false,
            interrupts: false,
            nested: false,
        }
    }

    fn create_vm(&self, config: VmConfig) -> Result<VmId, ModeError> {
        config.validate(ModeKind::Hvt)?;
        let request =
            VmRequest { name: config.name.clone(), memory: config.memory, vcpus: config.vcpus };
        let build = |id| self.build(id, &config).map_err(ModeError::build);
        Ok(self.vms.create(request, build)?.id())
    }

    fn start_vm(&self, vm: VmId) -> Result<(), ModeError> {
        self.vms.start(vm)?;
        Ok(())
    }

    fn stop_vm(&self, vm: VmId) -> Result<(), ModeError> {
        let (vm, run) = self.vms.stop(vm)?;
        vm.inner.control.stop(run);
        Ok(())
    }

    fn destroy_vm(&self, vm: VmId) -> Result<(), ModeError> {
        let vm = self.vms.destroy(vm)?;
        let ready = vm.inner.ready.lock().take();
        drop(ready);
        Ok(())
    }

    fn create_vcpu(&self, vm: VmId, config: VcpuConfig) -> Result<Box<dyn Vcpu>, ModeError> {
        let vm = self.vms.get(vm)?;
        let taken = if config.index == 0 { vm.inner.ready.lock().take() } else { None };
        let Some(ready) = taken else {
            let vcpu = VcpuId(config.index);
            return Err(ModeError::NoSuchVcpu { vm: vm.id(), vcpu, vcpus: 1 });
        };
        Ok(Box::new(HvtVcpu::new(vm, self.vms.clone(), ready)))
    }

    fn map_memory(&self, vm: VmId, _: MemoryRegion) -> Result<(), ModeError> {
        self.vms.get(vm)?;
        Err(unsupported("memory to add", "a unikernel has what it was started with; ask for more"))
    }

    fn inject_interrupt(&self, vm: VmId, _: VcpuId, _: u32) -> Result<(), ModeError> {
        self.vms.get(vm)?;
        Err(unsupported("interrupts", "a unikernel polls; send to its network instead"))
    }

    fn vm(&self, vm: VmId) -> Result<VmInfo, ModeError> {
        Ok(info(&*self.vms.get(vm)?))
    }

    fn vms(&self) -> Vec<VmInfo> {
        self.vms.all().iter().map(|vm| info(vm)).collect()
    }
}

fn unsupported(what: &'static str, instead: &'static str) -> ModeError {
    ModeError::Unsupported { mode: ModeKind::Hvt, what, instead }
}

fn info<T>(vm: &Vm<T>) -> VmInfo {
    VmInfo { id: vm.id(), mode: ModeKind::Hvt, name: vm.name().into(), snapshot: vm.snapshot() }
}
