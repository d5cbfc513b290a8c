//! Which mode an image is for, found by what is in it.
//!
//! [`detect`] is the only call. It reads at most [`MAX_TEXT`] bytes besides a few headers, whatever
//! the image says of itself, and trusts nothing: a wrong guess is corrected by the loader of the
//! mode, which checks everything. The rules are those of the proposal's mode selection:
//!
//! | image | mode | how it is known |
//! |---|---|---|
//! | Solo5 unikernel | HVT | ELF with a `PT_NOTE` of owner "Solo5" and type ABI1 |
//! | ISO 9660 | Type 1 | ECMA-119 §8.1: "CD001" in sector 16 |
//! | disk with partitions or a boot sector | Type 1 | UEFI 2.10 §5: "EFI PART"; 55 AA at 510 |
//! | Linux kernel | Type 1 | its boot protocols: bzImage, arm64 and RISC-V Image, ELF with a PVH note |
//! | multiboot kernel | Type 1 | its header in the first 8 KiB |
//! | VirtIO manifest | VirtIO | a TOML description whose VM is of mode "virtio" (feature `toml`) |

mod disk;
mod elf;
mod kernel;
mod multiboot;
#[cfg(feature = "toml")]
mod text;

use crate::host::{Blob, HostError};
use crate::memory::GuestSlice;
use crate::mode::ModeKind;
use core::fmt;

/// Longest VirtIO manifest that is looked into, in bytes.
pub const MAX_TEXT: usize = 64 << 10;

/// What an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// A Solo5 unikernel.
    Solo5,
    /// An ISO 9660 file system; with El Torito it can be booted.
    Iso9660 {
        /// Whether it has an El Torito boot record.
        el_torito: bool,
    },
    /// A disk with a GUID partition table.
    Gpt,
    /// A disk with a boot sector.
    BootSector,
    /// A Linux kernel for x86.
    BzImage,
    /// A Linux kernel for arm64 or RISC-V.
    LinuxImage,
    /// An ELF kernel that starts by PVH.
    Pvh,
    /// A kernel that starts by multiboot.
    Multiboot,
    /// A description of a VM of mode "virtio".
    VirtioManifest,
}

impl ImageKind {
    /// The mode that such an image is for.
    pub const fn mode(self) -> ModeKind {
        match self {
            Self::Solo5 => ModeKind::Hvt,
            Self::VirtioManifest => ModeKind::VirtIO,
            _ => ModeKind::Type1,
        }
    }

    /// Whether guests may only read it, if it is a disk: a CD image is one that they may.
    pub const fn disk(self) -> Option<bool> {
        match self {
            Self::Gpt | Self::BootSector => Some(false),
            Self::Iso9660 { .. } => Some(true),
            _ => None,
        }
    }
}

impl fmt::Display for ImageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Solo5 => "a Solo5 unikernel",
            Self::Iso9660 { el_torito: true } => "a bootable ISO 9660 image",
            Self::Iso9660 { el_torito: false } => "an ISO 9660 image without a boot record",
            Self::Gpt => "a disk image with a GUID partition table",
            Self::BootSector => "a disk image with a boot sector",
            Self::BzImage => "a Linux kernel (bzImage)",
            Self::LinuxImage => "a Linux kernel (Image)",
            Self::Pvh => "an ELF kernel with a PVH entry point",
            Self::Multiboot => "a kernel with a multiboot header",
            Self::VirtioManifest => "a VirtIO manifest",
        })
    }
}

/// Why an image tells no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// Nothing known.
    #[error(
        "the image is none that is known: looked for an ELF file with a Solo5 note, ISO 9660, \
         a GUID partition table, a boot sector, a Linux kernel (bzImage, Image, PVH), a multiboot \
         header and a VirtIO manifest; name the mode, for instance mode = \"hvt\""
    )]
    Unknown,
    /// A format that is known and cannot be used.
    #[error("{0} images cannot be used: convert it with `qemu-img convert -O raw`")]
    Unsupported(&'static str),
    /// A VM's description that is of another mode: not an image.
    #[error("the image is itself the description of a VM of mode \"{0}\": start that VM instead")]
    Description(ModeKind),
    /// A VM's description with a mistake.
    #[error("the image looks like a VirtIO manifest, but: {0}")]
    Manifest(crate::config::ConfigError),
    /// The host cannot read it.
    #[error("the image cannot be read: {0}; check the file")]
    Host(#[from] HostError),
}

/// Finds out what an image is.
///
/// # Errors
/// [`DetectError`]; [`DetectError::Unknown`] where nothing speaks for a mode.
pub fn detect(blob: &dyn Blob) -> Result<ImageKind, DetectError> {
    let image = Image(blob);
    if let Some(kind) = elf::look(&image)? {
        return Ok(kind);
    }
    // A Linux kernel and an ISO image may carry a boot sector as well, and a disk's is the
    // weakest sign of all.
    if let Some(kind) = kernel::look(&image)? {
        return Ok(kind);
    }
    if let Some(kind) = disk::look(&image)? {
        return Ok(kind);
    }
    if let Some(kind) = multiboot::look(&image)? {
        return Ok(kind);
    }
    #[cfg(feature = "toml")]
    if let Some(kind) = text::look(&image)? {
        return Ok(kind);
    }
    Err(DetectError::Unknown)
}

/// The image, read a little at a time.
struct Image<'a>(&'a dyn Blob);

impl Image<'_> {
    /// `N` bytes at `offset`, if the image has them.
    fn bytes<const N: usize>(&self, offset: u64) -> Result<Option<[u8; N]>, HostError> {
        let mut bytes = [0; N];
        let count = self.fill(offset, &mut bytes)?;
        Ok((count == N).then_some(bytes))
    }

    /// Whether this is at `offset`.
    fn has<const N: usize>(&self, offset: u64, expected: &[u8; N]) -> Result<bool, HostError> {
        Ok(self.bytes(offset)?.as_ref() == Some(expected))
    }

    /// Fills `to` from `offset` as far as there is data; a host may give it in pieces.
    fn fill(&self, offset: u64, to: &mut [u8]) -> Result<usize, HostError> {
        let mut done = 0;
        while done < to.len() {
            let Some(at) = offset.checked_add(done as u64) else { break };
            let rest = &mut to[done..];
            let most = rest.len();
            match self.0.read_at(at, GuestSlice::from_host(rest))? {
                0 => break,
                count => done += count.min(most),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests;
