//! Solo5's notes in an ELF file: which ABI it is for, and its manifest.
//!
//! Each note has a `PT_NOTE` program header of its own and is its first note (Solo5 v0.12.1
//! `include/elf_abi.h`, `mft_abi.h`, `tenders/common/elf.c`; the format of notes is in System V
//! gABI chapter 5). The first that matches counts. No more is read than a note of its kind may
//! have.

use super::elf::{Elf, ElfError, PT_NOTE, ProgramHeader, read_exact};
use super::manifest;
use crate::host::Blob;
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `Elf64_Nhdr` with Solo5's name, padded to 4 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct NoteHeader {
    namesz: U32,
    descsz: U32,
    kind: U32,
    name: [u8; 8],
}

const NAME: &[u8; 6] = b"Solo5\0";
/// Bytes of a note's header without its name.
const BARE_HEADER: u64 = 12;
const HEADER: usize = size_of::<NoteHeader>();

/// One of Solo5's notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoteKind {
    /// `n_type`.
    number: u32,
    /// Alignment of its content to the start of the note, in bytes.
    align: usize,
    /// Most bytes that its descriptor may have, with the padding before the content.
    max: usize,
}

/// "ABI1": target and version.
pub const ABI: NoteKind = NoteKind { number: 0x3149_4241, align: 4, max: 32 };
/// "MFT1": the manifest.
pub const MANIFEST: NoteKind =
    NoteKind { number: 0x3154_464d, align: 8, max: 4 + manifest::MAX_BYTES };

/// Why a note is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A size that cannot be.
    #[error("phdr[{index}] note does not fall within valid size ({size} is not {min}..={max})")]
    Size {
        /// Index of the program header.
        index: usize,
        /// The size in bytes.
        size: u64,
        /// The least it must be.
        min: u64,
        /// The most it may be.
        max: u64,
    },
    /// Its place in the file is not all there, or cannot be read.
    #[error("phdr[{index}] note: {error}")]
    Read {
        /// Index of the program header.
        index: usize,
        /// What is the matter.
        error: ElfError,
    },
}

/// The content of the ABI note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbiInfo {
    /// What kind of tender it is for.
    pub target: u32,
    /// Version of the ABI with that tender.
    pub version: u32,
}

/// Finds the ABI note.
///
/// # Errors
/// [`NoteError`].
pub fn abi(blob: &(impl Blob + ?Sized), elf: &Elf) -> Result<Option<AbiInfo>, NoteError> {
    let Some((index, content)) = find(blob, elf, ABI)? else { return Ok(None) };
    let size = content.len() as u64;
    let numbers = <[U32; 2]>::read_from_prefix(&content);
    let ([target, version], _) =
        numbers.map_err(|_| NoteError::Size { index, size, min: 8, max: ABI.max as u64 })?;
    Ok(Some(AbiInfo { target: target.get(), version: version.get() }))
}

/// Finds the manifest note: its content, not checked yet.
///
/// # Errors
/// [`NoteError`].
pub fn manifest(blob: &(impl Blob + ?Sized), elf: &Elf) -> Result<Option<Vec<u8>>, NoteError> {
    Ok(find(blob, elf, MANIFEST)?.map(|(_, content)| content))
}

fn find(
    blob: &(impl Blob + ?Sized),
    elf: &Elf,
    kind: NoteKind,
) -> Result<Option<(usize, Vec<u8>)>, NoteError> {
    for (index, header) in elf.of_kind(PT_NOTE) {
        let size = header.filesz.get();
        if size < BARE_HEADER {
            return Err(NoteError::Size { index, size, min: BARE_HEADER, max: u64::MAX });
        }
        // Too small for one of Solo5's: somebody else's note.
        if size < HEADER as u64 {
            continue;
        }
        let mut note = NoteHeader::new_zeroed();
        let read = read_exact(blob, "its header", header.offset.get(), note.as_mut_bytes());
        read.map_err(|error| NoteError::Read { index, error })?;
        if is_solo5(&note, kind) {
            return content(blob, index, header, note.descsz.get(), kind).map(Some);
        }
    }
    Ok(None)
}

fn is_solo5(note: &NoteHeader, kind: NoteKind) -> bool {
    note.namesz.get() as usize == NAME.len()
        && note.name.starts_with(NAME)
        && note.kind.get() == kind.number
}

/// Reads what follows a note's header and its padding.
fn content(
    blob: &(impl Blob + ?Sized),
    index: usize,
    header: &ProgramHeader,
    descsz: u32,
    kind: NoteKind,
) -> Result<(usize, Vec<u8>), NoteError> {
    let start = HEADER.next_multiple_of(kind.align);
    let padding = start - HEADER;
    let room = header.filesz.get() - HEADER as u64;
    let (min, max) = (padding as u64 + 1, room.min(kind.max as u64));
    let size = u64::from(descsz);
    if size < min || size > max {
        return Err(NoteError::Size { index, size, min, max });
    }
    let mut bytes = vec![0; descsz as usize - padding];
    let start = header.offset.get().saturating_add(start as u64);
    let read = read_exact(blob, "its content", start, &mut bytes);
    read.map_err(|error| NoteError::Read { index, error })?;
    Ok((index, bytes))
}

#[cfg(test)]
mod tests;
