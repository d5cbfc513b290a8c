//! A unikernel's image: what its file says, checked, and how it gets into a guest's memory.
//!
//! Order: [`Image::read`] the file; attach the devices of its manifest; [`Image::load`] it into
//! zeroed memory; give every range of [`Image::protections`] to the backend;
//! [`super::boot::setup`]. Everything that can be wrong with a file alone is found by `read`,
//! before there is a VM; the file is not trusted to stay the same until `load`.
//!
//! The rules are in [`super::elf`], [`super::notes`], [`super::segment`] and [`super::manifest`].

use super::arch::GuestArch;
use super::elf::{Elf, ElfError};
use super::layout::UNIT;
use super::manifest::{Manifest, ManifestError};
use super::notes::{self, NoteError};
use super::segment::{self, Segment, SegmentError};
use super::solo5_abi::{ABI_TARGET_HVT, ABI_VERSIONS};
use crate::host::{Blob, HostError};
use crate::memory::{Gpa, GuestMemory, MemoryError, Perms};
use alloc::vec::Vec;
use core::ops::Range;

/// A unikernel that an hvt tender can run.
#[derive(Debug, Clone)]
pub struct Image {
    /// The processor that it is for.
    pub arch: GuestArch,
    /// The version of the hvt ABI that it speaks; one of [`ABI_VERSIONS`].
    pub abi_version: u32,
    /// Its first instruction, inside of an executable segment.
    pub entry: Gpa,
    /// The first address after its last segment.
    pub end: Gpa,
    /// Its segments in ascending order; at least one, none overlap.
    pub segments: Vec<Segment>,
    /// Its devices.
    pub manifest: Manifest,
}

/// Why a file is not a unikernel that can be run here, or not in this much memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Not an executable for an hvt guest.
    #[error("invalid or unsupported executable: {0}; give the .hvt file of a Solo5 unikernel")]
    Elf(#[from] ElfError),
    /// A note that cannot be.
    #[error("invalid executable: {0}; build the unikernel again")]
    Note(#[from] NoteError),
    /// Nothing says that it is Solo5's.
    #[error("No Solo5 ABI information found in executable; give the .hvt file of a unikernel")]
    NoAbi,
    /// For another tender.
    #[error("Executable is not for the solo5-hvt target (1) but for target {0}; build it for hvt")]
    Target(u32),
    /// From another time.
    #[error(
        "Executable requests unsupported ABI version {0}; build it with a Solo5 whose hvt ABI \
         version is {first} to {last}",
        first = ABI_VERSIONS.start(), last = ABI_VERSIONS.end()
    )]
    AbiVersion(u32),
    /// Without a manifest.
    #[error("No Solo5 manifest found in executable; build it with a manifest")]
    NoManifest,
    /// With a manifest that cannot be.
    #[error("Solo5 manifest is invalid: {0}; make it with solo5-elftool")]
    Manifest(#[from] ManifestError),
    /// A segment that breaks a rule.
    #[error("invalid executable: {0}; link the unikernel with Solo5's linker script")]
    Segment(#[from] SegmentError),
    /// Nothing to load.
    #[error("invalid executable: it has no segments to load; build the unikernel again")]
    NoSegments,
    /// The first instruction is not in an executable segment.
    #[error("invalid executable: e_entry {0:#x} is not in an executable segment; link it again")]
    Entry(u64),
    /// It does not fit.
    #[error(
        "invalid executable for this guest: it ends at {end:#x} but guest memory at {mem_size:#x}; \
         the smallest memory that holds it is --mem={smallest}"
    )]
    MemoryTooSmall {
        /// End of the image.
        end: u64,
        /// Size of the memory in bytes.
        mem_size: u64,
        /// The smallest that would do, in MiB.
        smallest: u64,
    },
    /// The host cannot read a segment.
    #[error("phdr[{index}] cannot be read: {error}; check the file and its disk")]
    Read {
        /// Index of the program header.
        index: usize,
        /// What the host said.
        error: HostError,
    },
    /// The file has become shorter since it was checked.
    #[error("phdr[{index}]: only {found} of {wanted} bytes could be read; do not change the file")]
    Changed {
        /// Index of the program header.
        index: usize,
        /// Bytes that were there.
        found: usize,
        /// Bytes that there were before.
        wanted: u64,
    },
    /// The backend's memory is not where the guest's should be.
    #[error("phdr[{index}] cannot be loaded: {error}; use another backend")]
    Memory {
        /// Index of the program header.
        index: usize,
        /// What is wrong.
        error: MemoryError,
    },
}

impl Image {
    /// Reads and checks an image for `arch`. Costs memory for its headers and manifest only.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn read(blob: &(impl Blob + ?Sized), arch: GuestArch) -> Result<Self, ImageError> {
        let elf = Elf::read(blob, arch)?;
        let abi_version = check_abi(notes::abi(blob, &elf)?)?;
        let manifest = notes::manifest(blob, &elf)?.ok_or(ImageError::NoManifest)?;
        let manifest = Manifest::parse(&manifest)?;
        let segments = segment::collect(&elf.headers, arch, blob.len())?;
        let end = Gpa(segments.last().ok_or(ImageError::NoSegments)?.range.end);
        check_entry(elf.entry, &segments)?;
        Ok(Self { arch, abi_version, entry: Gpa(elf.entry), end, segments, manifest })
    }

    /// Checks that the image fits into `mem_size` bytes, the size that the guest is told.
    ///
    /// # Errors
    /// [`ImageError::MemoryTooSmall`].
    pub fn check_fits(&self, mem_size: u64) -> Result<(), ImageError> {
        let end = self.end.0;
        if end <= mem_size {
            return Ok(());
        }
        let smallest = end.next_multiple_of(UNIT) >> 20;
        Err(ImageError::MemoryTooSmall { end, mem_size, smallest })
    }

    /// Reads the segments into `memory`, which is zero where they go.
    ///
    /// # Errors
    /// [`ImageError::MemoryTooSmall`], [`ImageError::Read`], [`ImageError::Changed`] and
    /// [`ImageError::Memory`]. The memory is then of no use any more.
    pub fn load(
        &self,
        blob: &(impl Blob + ?Sized),
        memory: &GuestMemory,
        mem_size: u64,
    ) -> Result<(), ImageError> {
        self.check_fits(mem_size)?;
        self.segments.iter().try_for_each(|segment| load(blob, memory, segment))
    }

    /// What the guest may do with each range of pages that the image has; elsewhere it may read
    /// and write.
    pub fn protections(&self) -> impl Iterator<Item = (Range<u64>, Perms)> + '_ {
        self.segments.iter().map(|segment| (segment.range.clone(), segment.perms))
    }
}

fn load(
    blob: &(impl Blob + ?Sized),
    memory: &GuestMemory,
    segment: &Segment,
) -> Result<(), ImageError> {
    let (index, wanted) = (segment.index, segment.file_size);
    if wanted == 0 {
        return Ok(());
    }
    let to = memory
        .slice(Gpa(segment.vaddr), wanted, Perms::WRITE)
        .map_err(|error| ImageError::Memory { index, error })?;
    let found =
        blob.read_at(segment.file_offset, to).map_err(|error| ImageError::Read { index, error })?;
    if found as u64 != wanted {
        return Err(ImageError::Changed { index, found, wanted });
    }
    Ok(())
}

fn check_abi(abi: Option<notes::AbiInfo>) -> Result<u32, ImageError> {
    let abi = abi.ok_or(ImageError::NoAbi)?;
    if abi.target != ABI_TARGET_HVT {
        return Err(ImageError::Target(abi.target));
    }
    if !ABI_VERSIONS.contains(&abi.version) {
        return Err(ImageError::AbiVersion(abi.version));
    }
    Ok(abi.version)
}

fn check_entry(entry: u64, segments: &[Segment]) -> Result<(), ImageError> {
    let inside = |s: &Segment| s.perms.contains(Perms::EXEC) && s.range.contains(&entry);
    if segments.iter().any(inside) { Ok(()) } else { Err(ImageError::Entry(entry)) }
}

#[cfg(test)]
mod tests;
