//! The tender: turns a checked image and what the host lends into a guest that can be run.
//!
//! Order: [`Image::read`], attach the devices of its manifest, [`Guest::new`] on any backend,
//! start a thread for [`Guest::ring`] where there is one, give up privileges, [`Guest::run`].
//! Everything that can fail in the host fails before the guest's first instruction.

use super::boot::{self, Boot, BootError};
use super::cmdline::CommandLine;
use super::image::{Image, ImageError};
use super::layout::Layout;
use super::ring::Ring;
use super::service::{HostEvents, Resources, Service};
use super::solo5_abi::RING_KICK_PIO;
use super::stats::Stats;
use crate::host::Blob;
use crate::memory::{MemoryError, Perms};
use crate::vcpu::{Backend, BackendError, BackendVm, Doorbell, Ending, ExitHandler, VmSpec, run};
use alloc::sync::Arc;

/// What a guest is made of.
pub struct GuestSpec<'a> {
    /// Its image, all devices attached.
    pub image: &'a Image,
    /// The file that the image was read from.
    pub blob: &'a dyn Blob,
    /// How much memory it gets, and whether there is room for a ring.
    pub layout: Layout,
    /// Its command line.
    pub cmdline: &'a CommandLine,
    /// Offer the ring although the backend has no doorbell, and each submission is an exit.
    pub ring_without_doorbell: bool,
}

/// Why a guest cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TenderError {
    /// The image does not fit, or its file has changed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its low memory cannot be set up.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The ring is outside of its memory.
    #[error("the network ring cannot be set up: {0}; use --no-net-ring")]
    Ring(#[from] MemoryError),
}

/// A ring that wants a thread: [`Ring::serve`] it with this bell, and stop it at the end.
pub struct RingThread {
    /// The ring.
    pub ring: Arc<Ring>,
    /// What the guest rings.
    pub bell: Arc<dyn Doorbell>,
}

/// A guest ready to run. Fields are dropped in order: the vCPU before its VM.
pub struct Guest<V: BackendVm> {
    /// Its one vCPU.
    pub vcpu: V::Vcpu,
    /// Its VM.
    pub vm: V,
    /// Answers its exits.
    pub service: Arc<Service>,
    /// Set where its ring wants a thread.
    pub ring: Option<RingThread>,
}

impl<V: BackendVm> Guest<V> {
    /// Makes a VM, loads the image and prepares the first vCPU.
    ///
    /// # Errors
    /// [`TenderError`].
    pub fn new<B: Backend<Vm = V>>(
        backend: &B,
        spec: &GuestSpec<'_>,
        resources: Resources,
        events: Arc<dyn HostEvents>,
        stats: Option<&'static Stats>,
    ) -> Result<Self, TenderError> {
        // Before the VM is made, because the message is about what the user can change.
        spec.image.check_fits(spec.layout.mem_size)?;
        let vm = backend.create_vm(VmSpec { memory: spec.layout.alloc })?;
        Self::in_vm(vm, backend, spec, resources, events, stats)
    }

    /// As [`Guest::new`], in a VM of `spec.layout.alloc` bytes that nobody has used yet.
    ///
    /// # Errors
    /// [`TenderError`].
    pub fn in_vm<B: Backend<Vm = V>>(
        mut vm: V,
        backend: &B,
        spec: &GuestSpec<'_>,
        resources: Resources,
        events: Arc<dyn HostEvents>,
        stats: Option<&'static Stats>,
    ) -> Result<Self, TenderError> {
        let caps = backend.capabilities();
        load(&mut vm, spec)?;
        let mut service = Service::new(resources, events, stats);
        let ring = ring(&vm, spec, &mut service)?;
        let boot = Boot {
            image: spec.image,
            layout: &spec.layout,
            cmdline: spec.cmdline,
            cycle_frequency: vm.cycle_frequency()?,
            offer_ring: !matches!(ring, Offer::No),
            lowest_gpa: caps.lowest_gpa,
        };
        let state = boot::setup(vm.memory_mut(), &boot)?;
        if !caps.lowest_gpa.is_null() {
            // No page tables say it there.
            vm.protect(boot::INPUT, Perms::READ)?;
        }
        let service = Arc::new(service);
        let handler: Arc<dyn ExitHandler> = Arc::<Service>::clone(&service);
        let vcpu = vm.create_vcpu(state, handler)?;
        let ring = match ring {
            Offer::Thread(thread) => Some(thread),
            Offer::No | Offer::InPlace => None,
        };
        Ok(Self { vcpu, vm, service, ring })
    }

    /// Runs the guest to its end.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn run(&mut self) -> Result<Ending, BackendError> {
        run(&mut self.vcpu, &*self.service, self.vm.memory())
    }
}

fn load<V: BackendVm>(vm: &mut V, spec: &GuestSpec<'_>) -> Result<(), TenderError> {
    spec.image.load(spec.blob, vm.memory(), spec.layout.mem_size)?;
    for (range, perms) in spec.image.protections() {
        // Page tables have no execute-only pages, so code can be read: by the guest, and on its
        // behalf.
        let readable = if perms.contains(Perms::EXEC) { Perms::READ } else { Perms::empty() };
        vm.protect(range, perms | readable)?;
    }
    Ok(())
}

enum Offer {
    No,
    InPlace,
    Thread(RingThread),
}

fn ring<V: BackendVm>(
    vm: &V,
    spec: &GuestSpec<'_>,
    service: &mut Service,
) -> Result<Offer, TenderError> {
    let Some(base) = spec.layout.ring else { return Ok(Offer::No) };
    service.end_memory_at(base);
    let ring = Arc::new(Ring::new(base));
    if let Some(bell) = vm.doorbell(RING_KICK_PIO)? {
        return Ok(Offer::Thread(RingThread { ring, bell }));
    }
    if !spec.ring_without_doorbell {
        return Ok(Offer::No);
    }
    ring.always_kick(vm.memory())?;
    service.serve_ring(ring);
    Ok(Offer::InPlace)
}
