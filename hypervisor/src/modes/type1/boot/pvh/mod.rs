//! A kernel in an ELF file by PVH: Linux's vmlinux, and others that have the note.
//!
//! Order: as in [`super::linux`]: [`Kernel::read`], [`Kernel::load`].
//!
//! Source: Xen `public/arch-x86/hvm/start_info.h` (version 1) and `docs/misc/pvh.pandoc`,
//! `public/elfnote.h`.

mod note;
mod start_info;

use super::elf::{Elf, ElfError, PT_LOAD, Segment};
use super::map::Row;
use super::modules;
use super::place::{self, COMMAND_LINE, GDT, START_INFO};
use super::read::{ReadError, load};
use super::{Given, StartError, state};
use crate::host::Blob;
use crate::memory::{Gpa, GuestMemory};
use crate::vcpu::X86State;
use alloc::vec::Vec;

/// A kernel image that this machine can start.
#[derive(Debug, Clone)]
pub struct Kernel {
    entry: u32,
    /// Ascending, disjoint, none empty.
    segments: Vec<Segment>,
    end: u64,
}

/// Why a file is no kernel that can be started by PVH.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PvhError {
    /// Not an executable for x86.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The file cannot be read or ends early.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nothing says where to start.
    #[error(
        "it has neither a note XEN_ELFNOTE_PHYS32_ENTRY nor a multiboot header; build Linux with CONFIG_PVH"
    )]
    NoEntry,
    /// The notes' sizes do not add up.
    #[error("phdr[{0}]: its notes are malformed")]
    Note(usize),
    /// More notes than anyone needs.
    #[error("phdr[{index}] has {size} bytes of notes, more than {limit}")]
    NotesTooLarge {
        /// Index of the program header.
        index: usize,
        /// Their size.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// The entry point is nowhere.
    #[error("the entry point {0:#x} is in no segment that is loaded")]
    Entry(u64),
    /// Nothing to load.
    #[error("it has no segments to load")]
    NoSegments,
    /// A segment that cannot be.
    #[error(
        "phdr[{index}]: p_filesz {filesz:#x} is larger than p_memsz {memsz:#x}, or the segment at {paddr:#x} wraps around"
    )]
    Size {
        /// Index of the program header.
        index: usize,
        /// Its physical address.
        paddr: u64,
        /// Its size in the file.
        filesz: u64,
        /// Its size in memory.
        memsz: u64,
    },
    /// A segment where the boot information goes.
    #[error("phdr[{index}] is loaded at {paddr:#x}, below 1 MiB; link the kernel higher")]
    TooLow {
        /// Index of the program header.
        index: usize,
        /// Its physical address.
        paddr: u64,
    },
    /// Two segments at one place.
    #[error("the segments at {0:#x} and {1:#x} overlap")]
    Overlap(u64, u64),
}

impl Kernel {
    /// Reads and checks headers and notes.
    ///
    /// # Errors
    /// [`PvhError`].
    pub fn read(blob: &(impl Blob + ?Sized)) -> Result<Self, PvhError> {
        let elf = Elf::read(blob)?;
        let entry = note::entry(blob, &elf)?.ok_or(PvhError::NoEntry)?;
        let segments = collect(&elf)?;
        let end = segments.last().map(end).ok_or(PvhError::NoSegments)?;
        let inside = |s: &Segment| (s.paddr..end_of(s)).contains(&entry);
        match u32::try_from(entry) {
            Ok(entry) if segments.iter().any(inside) => Ok(Self { entry, segments, end }),
            _ => Err(PvhError::Entry(entry)),
        }
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
        super::write_command_line(memory, given.cmdline, super::MAX_COMMAND_LINE)?;
        let ram = given.low_ram_end();
        if self.end > ram {
            let at = self.segments.first().map_or(0, |segment| segment.paddr);
            return Err(StartError::KernelTooLarge { at, size: self.end - at, ram });
        }
        for s in &self.segments {
            load(blob, "a segment of the kernel", s.offset, s.filesz, memory, Gpa(s.paddr))?;
        }
        let texts = COMMAND_LINE.start + given.cmdline.len() as u64 + 1..COMMAND_LINE.end;
        let modules = modules::place(memory, given, self.end, u64::MAX, texts)?;
        start_info::write(memory, given, map, &modules)?;
        Ok(state::protected_mode(memory, GDT, self.entry, START_INFO)?)
    }
}

/// The segments to load, each checked alone and against its neighbour.
fn collect(elf: &Elf) -> Result<Vec<Segment>, PvhError> {
    let mut segments = Vec::new();
    for (index, segment) in elf.of_kind(PT_LOAD).filter(|(_, segment)| segment.memsz > 0) {
        let Segment { paddr, filesz, memsz, .. } = *segment;
        if filesz > memsz || paddr.checked_add(memsz).is_none() {
            return Err(PvhError::Size { index, paddr, filesz, memsz });
        }
        if paddr < place::HIGH {
            return Err(PvhError::TooLow { index, paddr });
        }
        segments.push(*segment);
    }
    segments.sort_by_key(|segment| segment.paddr);
    match segments.windows(2).find(|pair| end(&pair[0]) > pair[1].paddr) {
        Some(pair) => Err(PvhError::Overlap(pair[0].paddr, pair[1].paddr)),
        None => Ok(segments),
    }
}

/// One after its last byte; `collect` has checked that it does not wrap around.
fn end(segment: &Segment) -> u64 {
    segment.paddr.saturating_add(segment.memsz)
}

/// End of what comes from the file: an entry point is code.
fn end_of(segment: &Segment) -> u64 {
    segment.paddr.saturating_add(segment.filesz)
}
