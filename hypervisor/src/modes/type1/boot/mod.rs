//! How a machine starts: an operating system straight away, or firmware.
//!
//! A kernel is started by Linux's 64-bit boot protocol ([`linux`]), by PVH ([`pvh`]) or by multiboot
//! ([`multiboot`]); all are given ACPI tables ([`acpi`]), a memory map ([`map`]), a RAM disk and a
//! command line, the latter two also further modules ([`modules`]). Firmware
//! ([`firmware`]) starts as a processor does after reset and asks for the same by [`fw_cfg`].
//!
//! Order: the memory is made and zeroed; tables are written; [`start`] loads the kernel and
//! returns the state of the first vCPU. Nothing in an image is trusted, and no image is held in
//! the host's memory as a whole: [`read`] copies it piece by piece to where the guest has it.

pub mod acpi;
pub mod bios;
pub mod elf;
pub mod firmware;
pub mod fw_cfg;
pub mod linux;
pub mod map;
pub mod modules;
pub mod multiboot;
pub mod place;
pub mod pvh;
pub mod read;
pub mod state;

use crate::host::Blob;
use crate::memory::{Gpa, GuestMemory, MemoryError};
use crate::vcpu::X86State;
use core::ops::Range;
use linux::LinuxError;
use map::Row;
use modules::Module;
use multiboot::MultibootError;
use place::COMMAND_LINE;
use pvh::PvhError;
use read::{ReadError, load, read_exact};

/// Longest command line of any kernel in bytes; kernels have limits of their own below it.
pub const MAX_COMMAND_LINE: u64 = COMMAND_LINE.end - COMMAND_LINE.start - 1;

/// What a kernel is given.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The machine's RAM, ascending; the first range starts at 0.
    pub ram: &'a [Range<u64>],
    /// The file's name, which some protocols put before the command line.
    pub name: &'a [u8],
    /// Its command line, without a zero byte.
    pub cmdline: &'a [u8],
    /// Its RAM disk.
    pub ramdisk: Option<&'a dyn Blob>,
    /// Its other modules.
    pub modules: &'a [Module<'a>],
    /// The ACPI tables' root.
    pub rsdp: Gpa,
}

impl core::fmt::Debug for Given<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Given")
            .field("ram", &self.ram)
            .field("name", &self.name)
            .field("cmdline", &self.cmdline)
            .field("ramdisk", &self.ramdisk.map(Blob::len))
            .field("modules", &self.modules.len())
            .field("rsdp", &self.rsdp)
            .finish()
    }
}

impl Given<'_> {
    /// End of the RAM that starts at 0.
    fn low_ram_end(&self) -> u64 {
        self.ram.first().filter(|range| range.start == 0).map_or(0, |range| range.end)
    }
}

/// Why a machine cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The kernel is no bzImage that can be started.
    #[error("the kernel cannot be started: {0}")]
    Linux(#[from] LinuxError),
    /// The kernel is no ELF file that can be started.
    #[error("the kernel cannot be started by PVH: {0}")]
    Pvh(#[from] PvhError),
    /// The kernel has a multiboot header, and cannot be started.
    #[error("the kernel cannot be started by multiboot: {0}")]
    Multiboot(#[from] MultibootError),
    /// The file is nothing of that.
    #[error(
        "the kernel is neither a bzImage nor an ELF file, and has no multiboot header; give the file that the distribution has as /boot/vmlinuz, or a vmlinux with a PVH note"
    )]
    UnknownKernel,
    /// A file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The low memory is not there.
    #[error("the memory for starting a kernel is not there: {0}; give the VM at least 2M")]
    Memory(#[from] MemoryError),
    /// The kernel does not fit.
    #[error(
        "the kernel needs {size} bytes from {at:#x}, and the RAM below 4 GiB ends at {ram:#x}; give the VM more memory"
    )]
    KernelTooLarge {
        /// Where it is to be.
        at: u64,
        /// How much it needs there.
        size: u64,
        /// Where the RAM ends.
        ram: u64,
    },
    /// The RAM disk does not fit.
    #[error(
        "the RAM disk of {size} bytes does not fit between the kernel's end at {start:#x} and {end:#x}; give the VM more memory"
    )]
    RamdiskTooLarge {
        /// Its size.
        size: u64,
        /// Where the kernel ends.
        start: u64,
        /// Where the RAM that the kernel can use for it ends.
        end: u64,
    },
    /// The modules do not fit.
    #[error(
        "the {count} modules (the RAM disk is one) need {size} bytes, which do not fit between the kernel's end at {start:#x} and {end:#x}; give the VM more memory"
    )]
    ModulesTooLarge {
        /// How many they are.
        count: usize,
        /// Their size in whole pages.
        size: u64,
        /// Where the kernel ends.
        start: u64,
        /// Where the RAM that the kernel can use for them ends.
        end: u64,
    },
    /// A bzImage is given modules.
    #[error(
        "`modules` are for multiboot and PVH kernels, and the kernel is a bzImage; write `initrd`"
    )]
    ModulesOfLinux,
    /// The command line is too long.
    #[error("the command line has {0} bytes, the kernel takes {1}; shorten it")]
    CommandLineTooLong(u64, u64),
    /// The command line has a zero byte.
    #[error("the command line has a zero byte, which would end it; remove it")]
    CommandLineZero,
    /// The firmware image has a size that cannot be mapped.
    #[error(
        "the firmware has {0} bytes; it must be a multiple of 4 KiB, from 64 KiB to 16 MiB, such as SeaBIOS's bios-256k.bin or OVMF.fd"
    )]
    FirmwareSize(u64),
}

/// Loads a kernel of any kind with what it is given into zeroed memory, and returns the state
/// in which the first vCPU starts.
///
/// # Errors
/// [`StartError`]; the memory is then of no use any more.
pub fn start(
    kernel: &dyn Blob,
    memory: &GuestMemory,
    given: &Given<'_>,
    map: &[Row],
) -> Result<X86State, StartError> {
    let mut magic = [0; 4];
    read_exact(kernel, "the kernel", 0, &mut magic)?;
    let refused = if magic == *b"\x7fELF" {
        match pvh::Kernel::read(kernel) {
            Ok(found) => return found.load(kernel, memory, given, map),
            Err(error @ PvhError::NoEntry) => error.into(),
            Err(error) => return Err(error.into()),
        }
    } else {
        match linux::Kernel::read(kernel) {
            Ok(found) => return found.load(kernel, memory, given, map),
            Err(LinuxError::BootFlag | LinuxError::Magic) => StartError::UnknownKernel,
            // A small file of another kind ends before that header does.
            Err(error @ LinuxError::Read(ReadError::Truncated { .. })) => error.into(),
            Err(error) => return Err(error.into()),
        }
    };
    match multiboot::Kernel::find(kernel)? {
        Some(found) => found.load(kernel, memory, given, map),
        None => Err(refused),
    }
}

/// Writes the command line with its terminating zero.
fn write_command_line(memory: &GuestMemory, text: &[u8], limit: u64) -> Result<(), StartError> {
    let size = text.len() as u64;
    if size > limit.min(MAX_COMMAND_LINE) {
        return Err(StartError::CommandLineTooLong(size, limit.min(MAX_COMMAND_LINE)));
    }
    if text.contains(&0) {
        return Err(StartError::CommandLineZero);
    }
    memory.write_bytes(Gpa(COMMAND_LINE.start), text)?;
    memory.write_bytes(Gpa(COMMAND_LINE.start + size), &[0])?;
    Ok(())
}

/// Loads the RAM disk as high as it may be: address and size, zero without one.
fn load_ramdisk(
    memory: &GuestMemory,
    given: &Given<'_>,
    kernel_end: u64,
    limit: u64,
) -> Result<(u64, u64), StartError> {
    let Some(ramdisk) = given.ramdisk.filter(|blob| !blob.is_empty()) else { return Ok((0, 0)) };
    let (size, end) = (ramdisk.len(), limit.min(given.low_ram_end()));
    let at = place::highest(kernel_end, end, size).ok_or(StartError::RamdiskTooLarge {
        size,
        start: kernel_end,
        end,
    })?;
    load(ramdisk, "the RAM disk", 0, size, memory, Gpa(at))?;
    Ok((at, size))
}

#[cfg(test)]
mod tests;
