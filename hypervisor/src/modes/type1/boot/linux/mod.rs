//! Linux by its 64-bit boot protocol: a bzImage, as a distribution installs it.
//!
//! Order: [`Kernel::read`] the image, which finds everything that is wrong with the file alone;
//! [`Kernel::load`] it into zeroed memory with its RAM disk and command line; start the first
//! vCPU in the state that this returns.
//!
//! Source: Linux `Documentation/arch/x86/boot.rst` (protocol 2.12, Linux 3.8, and later) and
//! `zero-page.rst`.

mod header;
mod params;

pub use header::SetupHeader;

use super::map::Row;
use super::place::{self, BOOT_PARAMS};
use super::read::{ReadError, load, read_exact};
use super::{Given, StartError, state};
use crate::host::Blob;
use crate::memory::{Gpa, GuestMemory};
use crate::vcpu::X86State;
use header::{LOADED_HIGH, XLF_CAN_BE_LOADED_ABOVE_4G, XLF_KERNEL_64};
use zerocopy::{FromZeros, IntoBytes};

/// Oldest protocol with a 64-bit entry point: 2.12.
const OLDEST: u16 = 0x020c;
const SECTOR: u64 = 512;
/// The 64-bit entry point is this far behind the start of the protected-mode code.
const ENTRY64: u64 = 0x200;
/// Most that a kernel may need to decompress itself.
const MAX_INIT_SIZE: u64 = 1 << 30;
const MAX_ALIGNMENT: u32 = 1 << 30;

/// A kernel image that this machine can start.
#[derive(Debug, Clone)]
pub struct Kernel {
    header: SetupHeader,
    /// Where the protected-mode code is in the file.
    code: core::ops::Range<u64>,
}

/// Why a file is no kernel that can be started by this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinuxError {
    /// The file cannot be read or ends early.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No bzImage.
    #[error("it has no boot sector signature (55 AA at offset 510): not a bzImage")]
    BootFlag,
    /// No bzImage either.
    #[error("it has no setup header (\"HdrS\" at offset 514): not a bzImage")]
    Magic,
    /// Before Linux 3.8.
    #[error("its boot protocol is {}.{}; the oldest that can be started is 2.12 (Linux 3.8)", .0 >> 8, .0 & 0xff)]
    Version(u16),
    /// A zImage.
    #[error("it is a zImage, which loads below 1 MiB; build a bzImage")]
    LoadsLow,
    /// A 32-bit kernel.
    #[error("it has no 64-bit entry point (xloadflags is {0:#x}); use an amd64 kernel")]
    Not64Bit(u16),
    /// Nonsense in `kernel_alignment`.
    #[error("kernel_alignment is {0:#x}, not a power of two of at most 1 GiB")]
    Alignment(u32),
    /// Nonsense in `init_size`.
    #[error("init_size is {0:#x}, more than 1 GiB or less than the code of {1:#x} bytes")]
    InitSize(u64, u64),
    /// Nothing behind the setup code.
    #[error("there is no protected-mode code behind {0} setup sectors")]
    NoCode(u64),
}

impl Kernel {
    /// Reads and checks the setup header.
    ///
    /// # Errors
    /// [`LinuxError`].
    pub fn read(blob: &(impl Blob + ?Sized)) -> Result<Self, LinuxError> {
        let mut header = SetupHeader::new_zeroed();
        read_exact(blob, "the setup header", header::OFFSET, header.as_mut_bytes())?;
        check(&header)?;
        let sectors = match header.setup_sects {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let start = (sectors + 1) * SECTOR;
        let code = start..code_end(blob.len(), start, u64::from(header.syssize.get()) * 16)?;
        check_room(&header, code.end - code.start)?;
        Ok(Self { header, code })
    }

    /// Longest command line in bytes.
    pub fn max_command_line(&self) -> u64 {
        u64::from(self.header.cmdline_size.get()).min(super::MAX_COMMAND_LINE)
    }

    /// Loads the kernel and what it is given into zeroed memory, and returns the state in which
    /// the first vCPU starts.
    ///
    /// # Errors
    /// [`StartError`]. The memory is then of no use any more.
    pub fn load(
        &self,
        blob: &(impl Blob + ?Sized),
        memory: &GuestMemory,
        given: &Given<'_>,
        map: &[Row],
    ) -> Result<X86State, StartError> {
        if !given.modules.is_empty() {
            return Err(StartError::ModulesOfLinux);
        }
        super::write_command_line(memory, given.cmdline, self.max_command_line())?;
        let low_end = given.low_ram_end();
        let at = self.place(low_end)?;
        let size = self.code.end - self.code.start;
        load(blob, "the kernel's code", self.code.start, size, memory, Gpa(at))?;
        let ramdisk = self.load_ramdisk(memory, given, at + self.room())?;
        let params = params::build(&self.header, given, map, ramdisk, at);
        memory.write_bytes(BOOT_PARAMS, &params)?;
        Ok(state::long_mode(memory, at + ENTRY64, BOOT_PARAMS)?)
    }

    /// Bytes from the load address on that belong to the kernel until it runs.
    fn room(&self) -> u64 {
        u64::from(self.header.init_size.get())
    }

    /// Where it prefers to be, if that is RAM: it then decompresses itself in place. Else the
    /// lowest place that its alignment allows.
    fn place(&self, low_end: u64) -> Result<u64, StartError> {
        let preferred = self.header.pref_address.get();
        let fits = |at: &u64| {
            *at >= place::HIGH && at.checked_add(self.room()).is_some_and(|end| end <= low_end)
        };
        let lowest = place::HIGH.next_multiple_of(u64::from(self.header.kernel_alignment.get()));
        let relocated = (self.header.relocatable_kernel != 0).then_some(lowest);
        let found = [Some(preferred), relocated].into_iter().flatten().find(fits);
        found.ok_or(StartError::KernelTooLarge { at: preferred, size: self.room(), ram: low_end })
    }

    fn load_ramdisk(
        &self,
        memory: &GuestMemory,
        given: &Given<'_>,
        kernel_end: u64,
    ) -> Result<(u64, u64), StartError> {
        // Kernels that can say so have no limit; the others name the last byte that they reach.
        let high = self.header.xloadflags.get() & XLF_CAN_BE_LOADED_ABOVE_4G != 0;
        let limit = if high { u64::MAX } else { u64::from(self.header.initrd_addr_max.get()) + 1 };
        super::load_ramdisk(memory, given, kernel_end, limit)
    }
}

fn check(header: &SetupHeader) -> Result<(), LinuxError> {
    if header.boot_flag.get() != 0xaa55 {
        return Err(LinuxError::BootFlag);
    }
    if header.header != *b"HdrS" {
        return Err(LinuxError::Magic);
    }
    if header.version.get() < OLDEST {
        return Err(LinuxError::Version(header.version.get()));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(LinuxError::LoadsLow);
    }
    match header.xloadflags.get() {
        flags if flags & XLF_KERNEL_64 == 0 => Err(LinuxError::Not64Bit(flags)),
        _ => Ok(()),
    }
}

/// The code's size is told in units of 16 bytes, rounded up; behind it there may be a signature.
fn code_end(file: u64, start: u64, size: u64) -> Result<u64, LinuxError> {
    let rest = file.saturating_sub(start);
    if rest == 0 || size == 0 {
        return Err(LinuxError::NoCode(start / SECTOR - 1));
    }
    if rest.saturating_add(15) < size {
        let what = "the kernel's code";
        return Err(ReadError::Truncated { what, offset: start, size, file }.into());
    }
    Ok(start + size.min(rest))
}

fn check_room(header: &SetupHeader, code: u64) -> Result<(), LinuxError> {
    let alignment = header.kernel_alignment.get();
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(LinuxError::Alignment(alignment));
    }
    let room = u64::from(header.init_size.get());
    if room > MAX_INIT_SIZE || room < code {
        return Err(LinuxError::InitSize(room, code));
    }
    Ok(())
}
