//! The ELF headers of a kernel, of either class: read with bounds, checked, made alike.
//!
//! Order: [`Elf::read`], then the caller judges what the program headers say. Nothing of the file
//! is trusted; no more than [`MAX_HEADERS`] program headers are read.
//!
//! Source: System V gABI chapters 4 and 5. Unlike a unikernel, a kernel may be a 32-bit file and
//! is loaded by its physical addresses.

use super::read::{ReadError, read_exact};
use crate::host::Blob;
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most program headers that a kernel may have. Linux has about five.
pub const MAX_HEADERS: u16 = 128;
/// Type of a program header that describes a segment.
pub const PT_LOAD: u32 = 1;
/// Type of a program header that describes notes.
pub const PT_NOTE: u32 = 4;

const ELFCLASS32: u8 = 1;
const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const ET_EXEC: u16 = 2;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;

/// What a program header says, of either class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// [`PT_LOAD`], [`PT_NOTE`] or something that is not looked at.
    pub kind: u32,
    /// Offset of its bytes in the file.
    pub offset: u64,
    /// Virtual address in memory, which an entry point may be in.
    pub vaddr: u64,
    /// Physical address in memory.
    pub paddr: u64,
    /// How many bytes it has in the file.
    pub filesz: u64,
    /// How many bytes it has in memory.
    pub memsz: u64,
    /// Alignment: of notes, 8 says that they are padded to 8 bytes.
    pub align: u64,
}

/// The program headers of an executable for x86; at least one, not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// Where the kernel starts, as a boot loader without a protocol of its own would have it.
    pub entry: u64,
    /// In the order of the file.
    pub segments: Vec<Segment>,
}

/// Why a file is no executable that this machine could run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// The file cannot be read or ends early.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No ELF file at all.
    #[error("it does not start with the ELF magic number")]
    Magic,
    /// Neither 32-bit nor 64-bit.
    #[error("its class is {0}, neither 32-bit (1) nor 64-bit (2)")]
    Class(u8),
    /// A big-endian file.
    #[error("its byte order is {0}, not little-endian (1)")]
    ByteOrder(u8),
    /// A relocatable, shared or position-independent file.
    #[error("e_type is {0}, not ET_EXEC (2)")]
    NotExecutable(u16),
    /// For another processor.
    #[error("e_machine is {0}, neither EM_386 (3) nor EM_X86_64 (62)")]
    Machine(u16),
    /// Program headers of another size.
    #[error("e_phentsize is {found}, not {wanted}")]
    HeaderSize {
        /// The file's.
        found: u16,
        /// That of its class.
        wanted: u16,
    },
    /// None, or more than anyone needs.
    #[error("it has {0} program headers; allowed is 1 to {MAX_HEADERS}")]
    HeaderCount(u16),
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Identification {
    magic: [u8; 4],
    class: u8,
    data: u8,
    rest: [u8; 10],
    kind: U16,
    machine: U16,
}

/// Where the program headers are: `e_phoff`, `e_phentsize`, `e_phnum`.
struct Table {
    offset: u64,
    entry_size: u16,
    count: u16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header32 {
    entry: U32,
    phoff: U32,
    shoff: U32,
    flags: U32,
    ehsize: U16,
    phentsize: U16,
    phnum: U16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header64 {
    entry: U64,
    phoff: U64,
    shoff: U64,
    flags: U32,
    ehsize: U16,
    phentsize: U16,
    phnum: U16,
}

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Program32 {
    kind: U32,
    offset: U32,
    vaddr: U32,
    paddr: U32,
    filesz: U32,
    memsz: U32,
    flags: U32,
    align: U32,
}

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Program64 {
    kind: U32,
    flags: U32,
    offset: U64,
    vaddr: U64,
    paddr: U64,
    filesz: U64,
    memsz: U64,
    align: U64,
}

/// Offset of `e_entry`, where the classes begin to differ.
const REST: u64 = 24;

impl Elf {
    /// Reads and checks the headers.
    ///
    /// # Errors
    /// [`ElfError`].
    pub fn read(blob: &(impl Blob + ?Sized)) -> Result<Self, ElfError> {
        let mut id = Identification::new_zeroed();
        read_exact(blob, "the ELF header", 0, id.as_mut_bytes())?;
        check(&id)?;
        if id.class == ELFCLASS32 { read32(blob) } else { read64(blob) }
    }

    /// The segments of a kind, each with its index in the file.
    pub fn of_kind(&self, kind: u32) -> impl Iterator<Item = (usize, &Segment)> + '_ {
        self.segments.iter().enumerate().filter(move |(_, segment)| segment.kind == kind)
    }
}

fn check(id: &Identification) -> Result<(), ElfError> {
    if id.magic != *b"\x7fELF" {
        return Err(ElfError::Magic);
    }
    if id.class != ELFCLASS32 && id.class != ELFCLASS64 {
        return Err(ElfError::Class(id.class));
    }
    if id.data != ELFDATA2LSB {
        return Err(ElfError::ByteOrder(id.data));
    }
    if id.kind.get() != ET_EXEC {
        return Err(ElfError::NotExecutable(id.kind.get()));
    }
    match id.machine.get() {
        EM_386 | EM_X86_64 => Ok(()),
        other => Err(ElfError::Machine(other)),
    }
}

fn read32(blob: &(impl Blob + ?Sized)) -> Result<Elf, ElfError> {
    let mut header = Header32::new_zeroed();
    read_exact(blob, "the ELF header", REST, header.as_mut_bytes())?;
    let table = Table {
        offset: header.phoff.get().into(),
        entry_size: header.phentsize.get(),
        count: header.phnum.get(),
    };
    let headers: Vec<Program32> = read_table(blob, &table)?;
    let alike = |h: &Program32| Segment {
        kind: h.kind.get(),
        offset: h.offset.get().into(),
        vaddr: h.vaddr.get().into(),
        paddr: h.paddr.get().into(),
        filesz: h.filesz.get().into(),
        memsz: h.memsz.get().into(),
        align: h.align.get().into(),
    };
    let segments = headers.iter().map(alike).collect();
    Ok(Elf { entry: header.entry.get().into(), segments })
}

fn read64(blob: &(impl Blob + ?Sized)) -> Result<Elf, ElfError> {
    let mut header = Header64::new_zeroed();
    read_exact(blob, "the ELF header", REST, header.as_mut_bytes())?;
    let table = Table {
        offset: header.phoff.get(),
        entry_size: header.phentsize.get(),
        count: header.phnum.get(),
    };
    let headers: Vec<Program64> = read_table(blob, &table)?;
    let alike = |h: &Program64| Segment {
        kind: h.kind.get(),
        offset: h.offset.get(),
        vaddr: h.vaddr.get(),
        paddr: h.paddr.get(),
        filesz: h.filesz.get(),
        memsz: h.memsz.get(),
        align: h.align.get(),
    };
    let segments = headers.iter().map(alike).collect();
    Ok(Elf { entry: header.entry.get(), segments })
}

fn read_table<T: FromBytes + IntoBytes + Clone>(
    blob: &(impl Blob + ?Sized),
    table: &Table,
) -> Result<Vec<T>, ElfError> {
    if usize::from(table.entry_size) != size_of::<T>() {
        let wanted = u16::try_from(size_of::<T>()).unwrap_or(u16::MAX);
        return Err(ElfError::HeaderSize { found: table.entry_size, wanted });
    }
    if table.count == 0 || table.count > MAX_HEADERS {
        return Err(ElfError::HeaderCount(table.count));
    }
    let mut headers = vec![T::new_zeroed(); usize::from(table.count)];
    read_exact(blob, "the program headers", table.offset, headers.as_mut_bytes())?;
    Ok(headers)
}
