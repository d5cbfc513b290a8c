//! A kernel by the multiboot protocol: what GRUB's `multiboot` command starts.
//!
//! Order: [`Kernel::find`], which says whether a file is one; [`Kernel::load`].
//!
//! Source: Multiboot Specification 0.6.96. A kernel is an ELF file of either class, loaded by its
//! physical addresses, or any file whose header says where it goes. Its boot information is at
//! `ROOM`, so that a kernel may be loaded below and above. It gets no symbols, no drives and no
//! graphics mode; its first module is the RAM disk.

mod header;
mod info;

use super::elf::{Elf, ElfError, PT_LOAD};
use super::map::Row;
use super::modules;
use super::place::HIGH;
use super::read::{ReadError, load};
use super::{Given, StartError, state};
use crate::host::Blob;
use crate::memory::{Gpa, GuestMemory};
use crate::vcpu::X86State;
use alloc::vec::Vec;
use core::ops::Range;
use header::{Addresses, Header};

/// What a kernel finds in EAX.
const LOADED: u64 = 0x2bad_b002;
/// Descriptor table, boot information, command line.
const ROOM: Range<u64> = 0x9_0000..0x9_f000;
const GDT: Gpa = Gpa(ROOM.start);
const INFO: Gpa = Gpa(ROOM.start + 0x100);
/// The real-mode interrupt table and the BIOS's data: nothing is loaded here.
const LOWEST: u64 = 0x500;

/// Bytes of a file and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    /// Its index in the file, for messages.
    index: usize,
    /// Where its bytes are in the file.
    offset: u64,
    /// Where they go.
    at: u64,
    /// How many they are.
    filled: u64,
    /// How many it has in memory; what is not filled is zeroed.
    size: u64,
}

impl Part {
    /// One after its last byte; [`check`] has seen that it does not wrap around.
    fn end(&self) -> u64 {
        self.at.saturating_add(self.size)
    }
}

/// A kernel image that this machine can start.
#[derive(Debug, Clone)]
pub struct Kernel {
    entry: u32,
    /// Ascending, disjoint, none empty.
    parts: Vec<Part>,
}

/// Why a file with a multiboot header cannot be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultibootError {
    /// Not an executable for x86, and the header says nothing of addresses.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The file cannot be read or ends early.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something that a boot loader must do and this one cannot.
    #[error("its header's flags demand {0:#x}, which is not known here")]
    Demand(u32),
    /// Addresses that contradict each other.
    #[error(
        "its header's addresses do not fit together: header {header:#x}, load {load:#x} to {load_end:#x}, bss to {bss_end:#x}"
    )]
    Addresses {
        /// `header_addr`.
        header: u32,
        /// `load_addr`.
        load: u32,
        /// `load_end_addr`.
        load_end: u32,
        /// `bss_end_addr`.
        bss_end: u32,
    },
    /// Nothing to load.
    #[error("it has nothing to load")]
    Nothing,
    /// A segment that cannot be.
    #[error("segment {0}: it is larger in the file than in memory, or wraps around")]
    Size(usize),
    /// A segment where something else is.
    #[error(
        "segment {index} is at {start:#x} to {end:#x}; a kernel may be at {LOWEST:#x} to {:#x} or from {HIGH:#x} on", ROOM.start
    )]
    Place {
        /// Its index in the file.
        index: usize,
        /// Its first byte.
        start: u64,
        /// One after its last byte.
        end: u64,
    },
    /// Two segments at one place.
    #[error("the segments at {0:#x} and {1:#x} overlap")]
    Overlap(u64, u64),
    /// The entry point is nowhere.
    #[error("the entry point {0:#x} is in nothing that is loaded")]
    Entry(u64),
}

impl Kernel {
    /// Reads and checks the headers of a file, if it has a multiboot header.
    ///
    /// # Errors
    /// [`MultibootError`].
    pub fn find(blob: &(impl Blob + ?Sized)) -> Result<Option<Self>, MultibootError> {
        let Some(header) = Header::find(blob)? else { return Ok(None) };
        let (parts, entry) = match header.addresses {
            Some(addresses) => by_header(header.offset, &addresses, blob.len())?,
            None => by_elf(&Elf::read(blob)?),
        };
        let parts = check(parts)?;
        let inside = |part: &Part| (part.at..part.at.saturating_add(part.filled)).contains(&entry);
        match u32::try_from(entry) {
            Ok(entry) if parts.iter().any(inside) => Ok(Some(Self { entry, parts })),
            _ => Err(MultibootError::Entry(entry)),
        }
    }

    /// Loads the kernel and what it is given, and returns the state in which the first vCPU
    /// starts. The first MiB is zeroed; the rest may have been in use before a reset.
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
        let (ram, end) = (given.low_ram_end(), self.parts.last().map_or(0, Part::end));
        if end > ram {
            let at = self.parts.first().map_or(0, |part| part.at);
            return Err(StartError::KernelTooLarge { at, size: end - at, ram });
        }
        for part in &self.parts {
            let what = "a segment of the kernel";
            load(blob, what, part.offset, part.filled, memory, Gpa(part.at))?;
            zero(blob, memory, part.at + part.filled..part.end())?;
        }
        let texts = info::write_command_line(memory, given)?..ROOM.end;
        let modules = modules::place(memory, given, end.max(HIGH), 1 << 32, texts)?;
        info::write(memory, given, map, &modules)?;
        let state = state::protected_mode(memory, GDT, self.entry, INFO)?;
        Ok(X86State { rax: LOADED, ..state })
    }
}

/// What the header's addresses say.
fn by_header(offset: u64, a: &Addresses, file: u64) -> Result<(Vec<Part>, u64), MultibootError> {
    let [header, load, load_end, bss_end, entry] =
        [a.header, a.load, a.load_end, a.bss_end, a.entry].map(|field| u64::from(field.get()));
    let part = || {
        // The header is in the file, and at its address once the file is loaded.
        let offset = offset.checked_sub(header.checked_sub(load)?)?;
        let filled = match load_end {
            0 => file.checked_sub(offset)?,
            end => end.checked_sub(load)?,
        };
        let size = match bss_end {
            0 => filled,
            end => end.checked_sub(load)?,
        };
        (size >= filled).then_some(Part { index: 0, offset, at: load, filled, size })
    };
    match part() {
        Some(part) => Ok((Vec::from([part]), entry)),
        None => Err(MultibootError::Addresses {
            header: a.header.get(),
            load: a.load.get(),
            load_end: a.load_end.get(),
            bss_end: a.bss_end.get(),
        }),
    }
}

/// What the ELF headers say. The entry point is virtual: where its segment goes, it goes.
fn by_elf(elf: &Elf) -> (Vec<Part>, u64) {
    let mut entry = elf.entry;
    let mut parts = Vec::new();
    for (index, s) in elf.of_kind(PT_LOAD) {
        let (offset, at, filled, size) = (s.offset, s.paddr, s.filesz, s.memsz);
        parts.push(Part { index, offset, at, filled, size });
        match elf.entry.checked_sub(s.vaddr) {
            Some(inside) if inside < s.filesz => entry = s.paddr.saturating_add(inside),
            _ => {}
        }
    }
    (parts, entry)
}

/// Each part alone, and against its neighbour.
fn check(mut parts: Vec<Part>) -> Result<Vec<Part>, MultibootError> {
    parts.retain(|part| part.size > 0);
    for part in &parts {
        let Some(end) = part.at.checked_add(part.size).filter(|_| part.filled <= part.size) else {
            return Err(MultibootError::Size(part.index));
        };
        let low = part.at >= LOWEST && end <= ROOM.start;
        if !low && part.at < HIGH {
            return Err(MultibootError::Place { index: part.index, start: part.at, end });
        }
    }
    parts.sort_by_key(|part| part.at);
    match parts.windows(2).find(|pair| pair[0].end() > pair[1].at) {
        Some(pair) => Err(MultibootError::Overlap(pair[0].at, pair[1].at)),
        None if parts.is_empty() => Err(MultibootError::Nothing),
        None => Ok(parts),
    }
}

/// Zeroes what a guest may have used before a reset, in pieces between which others may run.
fn zero(
    blob: &(impl Blob + ?Sized),
    memory: &GuestMemory,
    range: Range<u64>,
) -> Result<(), StartError> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut at = range.start;
    while at < range.end {
        let piece = usize::try_from(range.end - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
        memory.write_bytes(Gpa(at), &ZEROS[..piece])?;
        blob.cleared(piece);
        at += piece as u64;
    }
    Ok(())
}
