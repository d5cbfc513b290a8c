//! What a guest finds in its low memory, and the state in which its vCPU starts.
//!
//! Order: [`setup`] once, on zeroed memory into which the image has been loaded and whose devices
//! are all attached. Afterwards low memory is closed to the host too: a hypercall whose argument
//! points there for writing is refused like any bad address.
//!
//! Source: Solo5 v0.12.1 `include/hvt_abi.h`, `tenders/hvt/hvt_boot_info.c`. The boot information
//! is followed by the manifest and the command line; guests of ABI version 1 read only the first
//! five fields and find the others by their addresses.

use super::arch::{GuestArch, x86_64};
use super::cmdline::CommandLine;
use super::image::Image;
use super::layout::Layout;
use super::solo5_abi::{BootInfo, CMDLINE_SIZE, FEATURE_RING_IO, GUEST_MIN_BASE};
use crate::memory::{Gpa, GuestMemory, MemoryError, Perms};
use crate::vcpu::VcpuState;
use core::ops::Range;

/// Low memory that neither guest nor hypercalls touch: the null page, descriptors, page tables.
/// The guest has it unmapped; a processor that walks the tables still needs it.
pub const PRIVATE: Range<u64> = 0..x86_64::BOOT_INFO.0;
/// Low memory that the guest reads only: boot information, manifest, command line. A backend
/// without guest page tables enforces this by `BackendVm::protect(INPUT, Perms::READ)`.
pub const INPUT: Range<u64> = x86_64::BOOT_INFO.0..GUEST_MIN_BASE;

/// What a guest is started with.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// The loaded image, all its devices attached.
    pub image: &'a Image,
    /// How the memory is laid out.
    pub layout: &'a Layout,
    /// The guest's command line.
    pub cmdline: &'a CommandLine,
    /// How fast the guest's cycle counter runs, in Hz.
    pub cycle_frequency: u64,
    /// Whether to offer network ring I/O, if the layout has a ring.
    pub offer_ring: bool,
    /// Where the backend's memory starts (`BackendCaps::lowest_gpa`): 0, or somewhere up to
    /// 0x10000 for a backend that has no use for page tables.
    pub lowest_gpa: Gpa,
}

/// Why a guest cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// Low memory is not all there.
    #[error("the guest's low memory cannot be set up: {0}; use another backend")]
    Memory(#[from] MemoryError),
    /// The manifest is larger than low memory; no manifest that was parsed is.
    #[error("{0} bytes of boot information do not fit below {GUEST_MIN_BASE:#x}; declare less")]
    TooLarge(u64),
    /// A guest divides by it.
    #[error("the frequency of the cycle counter is unknown; use another backend")]
    NoCycleFrequency,
    /// No backend runs it.
    #[error("executables for {0} cannot be run yet; build the unikernel for x86_64")]
    Arch(&'static str),
}

/// Writes low memory, closes it to hypercalls, and returns the state in which the vCPU starts.
///
/// # Errors
/// [`BootError`].
pub fn setup(memory: &mut GuestMemory, boot: &Boot<'_>) -> Result<VcpuState, BootError> {
    if boot.image.arch != GuestArch::X86_64 {
        return Err(BootError::Arch(boot.image.arch.name()));
    }
    if boot.cycle_frequency == 0 {
        return Err(BootError::NoCycleFrequency);
    }
    write_boot_info(memory, boot)?;
    let tables = boot.lowest_gpa.is_null();
    let state = x86_64::setup(memory, boot.layout, boot.image.entry, tables)?;
    memory.protect(INPUT, Perms::READ)?;
    let private = boot.lowest_gpa.0..PRIVATE.end;
    if !private.is_empty() {
        memory.protect(private, Perms::empty())?;
    }
    Ok(VcpuState::X86(state))
}

fn write_boot_info(memory: &GuestMemory, boot: &Boot<'_>) -> Result<(), BootError> {
    let manifest = boot.image.manifest.to_bytes();
    let mft = INPUT.start + size_of::<BootInfo>() as u64;
    let cmdline = mft + manifest.len() as u64;
    let end = cmdline + CMDLINE_SIZE as u64;
    if end > INPUT.end {
        return Err(BootError::TooLarge(end - INPUT.start));
    }
    let ring = boot.layout.ring.filter(|_| boot.offer_ring);
    let info = BootInfo {
        mem_size: boot.layout.mem_size,
        kernel_end: boot.image.end.0,
        cpu_cycle_freq: boot.cycle_frequency,
        cmdline: Gpa(cmdline),
        mft: Gpa(mft),
        host_features: if ring.is_some() { FEATURE_RING_IO } else { 0 },
        guest_features: 0,
        net_ring: ring.unwrap_or_default(),
    };
    memory.write_obj(Gpa(INPUT.start), &info)?;
    memory.write_bytes(Gpa(mft), &manifest)?;
    // The byte after it is zero, as all memory was: its terminator.
    memory.write_bytes(Gpa(cmdline), boot.cmdline.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests;
