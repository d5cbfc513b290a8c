//! A sandbox's VM: memory that the guest's process will have at its guest-physical addresses.
//!
//! The memory is a memfd, mapped here at an address of the kernel's choice for loading and for
//! looking at it afterwards. What lies below [`LOWEST`] is not backed: Linux lets no process map
//! it, and an HVT guest never sees it.

#![allow(unsafe_code)]

use crate::layout::LOWEST;
use crate::tsc::{self, Moment};
use crate::vcpu::SandboxVcpu;
use crate::{Child, SandboxConfig};
use core::ops::Range;
use hypervisor::memory::{Gpa, GuestMemory, HostBlock, Perms};
use hypervisor::vcpu::{BackendError, BackendVm, ExitHandler, VcpuState};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::sync::Arc;

/// A mapping of this process.
struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `SandboxVm::new`; whoever uses it shares this owner.
        let _ = unsafe { munmap(self.at.cast(), self.len) };
    }
}

// SAFETY: only an address range, unmapped once.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// A VM.
pub struct SandboxVm {
    memory: GuestMemory,
    file: OwnedFd,
    config: Arc<SandboxConfig>,
    epoch: Moment,
}

impl SandboxVm {
    pub(crate) fn new(
        bytes: u64,
        config: Arc<SandboxConfig>,
        epoch: Moment,
    ) -> Result<Self, BackendError> {
        let failed = |what: &str, e: Errno| {
            BackendError::new(format!(
                "cannot provide {} MiB of guest memory: {what}: {e}; {}",
                bytes >> 20,
                advice(e)
            ))
        };
        let len = bytes.checked_sub(LOWEST).and_then(|len| usize::try_from(len).ok());
        let len =
            len.ok_or_else(|| BackendError::new("guest memory is too small for a sandbox"))?;
        let kind = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // MFD_EXEC is younger (Linux 6.3) than memfd; without it memfds are executable anyway.
        let file = memfd_create("guest-memory", kind | MemfdFlags::EXEC)
            .or_else(|_| memfd_create("guest-memory", kind))
            .map_err(|e| failed("memfd_create", e))?;
        ftruncate(&file, len as u64).map_err(|e| failed("ftruncate", e))?;
        // The guest's process may write to the file, which must not give it more memory than this.
        let size = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, size).map_err(|e| failed("seal its size", e))?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { mmap(core::ptr::null_mut(), len, prot, flags, &file, 0) }
            .map_err(|e| failed("mmap", e))?
            .cast::<u8>();
        let mut memory = GuestMemory::new();
        let mapping = Arc::new(Mapping { at, len });
        // SAFETY: mapped until `mapping` is dropped.
        memory.add(unsafe { HostBlock::new(Gpa(LOWEST), len as u64, at, mapping) })?;
        Ok(Self { memory, file, config, epoch })
    }

    /// The descriptor of the guest's memory, which the guest's process has too.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// What helps where memory is refused so.
fn advice(error: Errno) -> &'static str {
    match error {
        Errno::MFILE | Errno::NFILE => "there are too many open files: raise `ulimit -n`",
        Errno::FBIG => "the limit of file sizes counts guest memory, too: raise `ulimit -f`",
        Errno::PERM | Errno::ACCESS | Errno::NOSYS => {
            "a system call filter or a security policy around this process forbids it: allow it"
        }
        _ => "try a smaller --mem",
    }
}

impl BackendVm for SandboxVm {
    type Vcpu = SandboxVcpu;

    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }

    fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), BackendError> {
        // The guest's process applies it to its own mapping when it starts.
        Ok(self.memory.protect(range, perms)?)
    }

    fn cycle_frequency(&self) -> Result<u64, BackendError> {
        Ok(tsc::frequency(&self.epoch))
    }

    fn create_vcpu(
        &self,
        state: VcpuState,
        handler: Arc<dyn ExitHandler>,
    ) -> Result<SandboxVcpu, BackendError> {
        let VcpuState::X86(state) = state;
        SandboxVcpu::spawn(Child {
            memory: &self.memory,
            file: &self.file,
            config: &self.config,
            state,
            handler,
        })
    }
}
