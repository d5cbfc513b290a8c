//! The ELF header and the program headers of an image: read with bounds, checked, copied.
//!
//! Order: [`Elf::read`], then [`super::notes`] and [`super::segment`] judge what the program
//! headers say. Nothing of the file is trusted; no more than [`MAX_HEADERS`] program headers are
//! read, so a hostile file costs a few KiB.
//!
//! Sources: System V gABI chapters 4 and 5; what is accepted is what Solo5 v0.12.1
//! `tenders/common/elf.c` accepts, but for tables that lie over the ELF header. The structures are
//! our own because the ELF crates want the whole file in memory, and here it is read in place.

use super::arch::GuestArch;
use crate::host::{Blob, HostError};
use crate::memory::GuestSlice;
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most program headers that an image may have. Solo5's toolchains make about ten.
pub const MAX_HEADERS: u16 = 128;
/// Type of a program header that describes a segment.
pub const PT_LOAD: u32 = 1;
/// Type of a program header that describes notes.
pub const PT_NOTE: u32 = 4;

const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const CURRENT: u32 = 1;
const ET_EXEC: u16 = 2;

/// `Elf64_Ehdr`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    ident: [u8; 16],
    kind: U16,
    machine: U16,
    version: U32,
    entry: U64,
    phoff: U64,
    shoff: U64,
    flags: U32,
    ehsize: U16,
    phentsize: U16,
    phnum: U16,
    sections: [U16; 3],
}

/// `Elf64_Phdr`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ProgramHeader {
    /// What it describes: [`PT_LOAD`], [`PT_NOTE`] or something that no tender looks at.
    pub kind: U32,
    /// Permissions: 1 execute, 2 write, 4 read.
    pub flags: U32,
    /// Offset of its bytes in the file.
    pub offset: U64,
    /// Address in memory.
    pub vaddr: U64,
    /// Unused.
    pub paddr: U64,
    /// How many bytes it has in the file.
    pub filesz: U64,
    /// How many bytes it has in memory.
    pub memsz: U64,
    /// Alignment in memory.
    pub align: U64,
}

const HEADER_SIZE: u16 = 64;
const PROGRAM_HEADER_SIZE: u16 = 56;
const _: () = assert!(size_of::<Header>() == HEADER_SIZE as usize);
const _: () = assert!(size_of::<ProgramHeader>() == PROGRAM_HEADER_SIZE as usize);

/// What the headers of an executable say.
#[derive(Debug, Clone)]
pub struct Elf {
    /// Address of the first instruction; not checked yet.
    pub entry: u64,
    /// The program headers, at least one; not checked yet.
    pub headers: Vec<ProgramHeader>,
}

/// Why a file is not an executable that an hvt guest can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// The host cannot read the file.
    #[error("{what} cannot be read: {error}")]
    Read {
        /// What was to be read.
        what: &'static str,
        /// What the host said.
        error: HostError,
    },
    /// The file ends before something that it says it has.
    #[error(
        "{what}, {size} bytes at offset {offset}, is beyond the end of the file ({file} bytes)"
    )]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Its offset in the file.
        offset: u64,
        /// Its size in bytes.
        size: u64,
        /// The file's size in bytes.
        file: u64,
    },
    /// No ELF file at all.
    #[error("it does not start with the ELF magic number")]
    Magic,
    /// A 32-bit file.
    #[error("its class is {0}, not 64-bit (2)")]
    Class(u8),
    /// A big-endian file.
    #[error("its byte order is {0}, not little-endian (1)")]
    ByteOrder(u8),
    /// A future ELF.
    #[error("its ELF version is {0}, not 1")]
    Version(u32),
    /// Header of another size.
    #[error("e_ehsize is {0}, not 64")]
    HeaderSize(u16),
    /// Program headers of another size.
    #[error("e_phentsize is {0}, not 56")]
    ProgramHeaderSize(u16),
    /// Nothing to load.
    #[error("it has no program headers")]
    NoProgramHeaders,
    /// More than anyone needs; 65535 would mean that the real number stands elsewhere.
    #[error("it has {0} program headers, more than {MAX_HEADERS}")]
    TooManyProgramHeaders(u16),
    /// The table of program headers lies over the ELF header.
    #[error("e_phoff is {0}: the program headers overlap the ELF header")]
    HeadersOverlap(u64),
    /// The table of program headers wraps around the file's addresses.
    #[error("e_phoff is {0:#x}: the program headers wrap around")]
    HeadersWrap(u64),
    /// A relocatable, shared or position-independent file.
    #[error("e_type is {0}, not ET_EXEC (2)")]
    NotExecutable(u16),
    /// For another processor.
    #[error("e_machine is {found}, not {wanted} ({name})")]
    Machine {
        /// The file's.
        found: u16,
        /// The guest's.
        wanted: u16,
        /// Its name.
        name: &'static str,
    },
}

impl Elf {
    /// Reads and checks the headers of an executable for `arch`.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn read(blob: &(impl Blob + ?Sized), arch: GuestArch) -> Result<Self, ElfError> {
        let mut header = Header::new_zeroed();
        read_exact(blob, "the ELF header", 0, header.as_mut_bytes())?;
        check(&header, arch)?;
        let count = usize::from(header.phnum.get());
        let mut headers = vec![ProgramHeader::new_zeroed(); count];
        read_exact(blob, "the program headers", header.phoff.get(), headers.as_mut_bytes())?;
        Ok(Self { entry: header.entry.get(), headers })
    }

    /// The program headers of a kind, each with its index.
    pub fn of_kind(&self, kind: u32) -> impl Iterator<Item = (usize, &ProgramHeader)> + '_ {
        self.headers.iter().enumerate().filter(move |(_, header)| header.kind.get() == kind)
    }
}

fn check(header: &Header, arch: GuestArch) -> Result<(), ElfError> {
    check_identification(header)?;
    check_sizes(header)?;
    if header.kind.get() != ET_EXEC {
        return Err(ElfError::NotExecutable(header.kind.get()));
    }
    if header.machine.get() != arch.machine() {
        return Err(ElfError::Machine {
            found: header.machine.get(),
            wanted: arch.machine(),
            name: arch.name(),
        });
    }
    Ok(())
}

/// OS ABI and ABI version are not looked at: toolchains set them as they please.
fn check_identification(header: &Header) -> Result<(), ElfError> {
    let [_, _, _, _, class, order, ..] = header.ident;
    if !header.ident.starts_with(MAGIC) {
        return Err(ElfError::Magic);
    }
    if class != CLASS_64 {
        return Err(ElfError::Class(class));
    }
    if order != LITTLE_ENDIAN {
        return Err(ElfError::ByteOrder(order));
    }
    if header.version.get() != CURRENT {
        return Err(ElfError::Version(header.version.get()));
    }
    Ok(())
}

fn check_sizes(header: &Header) -> Result<(), ElfError> {
    let (count, offset) = (header.phnum.get(), header.phoff.get());
    if header.ehsize.get() != HEADER_SIZE {
        return Err(ElfError::HeaderSize(header.ehsize.get()));
    }
    if count == 0 {
        return Err(ElfError::NoProgramHeaders);
    }
    if header.phentsize.get() != PROGRAM_HEADER_SIZE {
        return Err(ElfError::ProgramHeaderSize(header.phentsize.get()));
    }
    if count > MAX_HEADERS {
        return Err(ElfError::TooManyProgramHeaders(count));
    }
    if offset < u64::from(HEADER_SIZE) {
        return Err(ElfError::HeadersOverlap(offset));
    }
    match offset.checked_add(u64::from(count) * u64::from(PROGRAM_HEADER_SIZE)) {
        Some(_) => Ok(()),
        None => Err(ElfError::HeadersWrap(offset)),
    }
}

/// Fills `to` from `offset` of a file.
///
/// # Errors
/// [`ElfError::Truncated`] and [`ElfError::Read`].
pub fn read_exact(
    blob: &(impl Blob + ?Sized),
    what: &'static str,
    offset: u64,
    to: &mut [u8],
) -> Result<(), ElfError> {
    let size = to.len();
    let read = blob.read_at(offset, GuestSlice::from_host(to));
    match read.map_err(|error| ElfError::Read { what, error })? {
        count if count == size => Ok(()),
        _ => Err(ElfError::Truncated { what, offset, size: size as u64, file: blob.len() }),
    }
}

#[cfg(test)]
mod tests;
