//! The note that says where a PVH kernel starts (System V gABI chapter 5, "Note Section").

use super::PvhError;
use crate::host::Blob;
use crate::modes::type1::boot::elf::{Elf, PT_NOTE};
use crate::modes::type1::boot::read::read_exact;
use alloc::vec;

const NAME: &[u8] = b"Xen\0";
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PHYS32_ENTRY: u32 = 18;
/// Most bytes of one segment of notes that are read.
const MAX_NOTES: u64 = 64 << 10;
const HEADER: usize = 12;

/// The entry point, if a note says it.
pub fn entry(blob: &(impl Blob + ?Sized), elf: &Elf) -> Result<Option<u64>, PvhError> {
    for (index, segment) in elf.of_kind(PT_NOTE) {
        if segment.filesz > MAX_NOTES {
            let (size, limit) = (segment.filesz, MAX_NOTES);
            return Err(PvhError::NotesTooLarge { index, size, limit });
        }
        let mut notes = vec![0; usize::try_from(segment.filesz).unwrap_or(0)];
        read_exact(blob, "the notes", segment.offset, &mut notes)?;
        let padding = if segment.align == 8 { 8 } else { 4 };
        if let Some(found) = search(&notes, padding).map_err(|()| PvhError::Note(index))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Every note is at least a header long, so this ends. `Err`: sizes that go beyond the end.
fn search(mut notes: &[u8], padding: usize) -> Result<Option<u64>, ()> {
    while notes.len() >= HEADER {
        let word = |at: usize| {
            u32::from_le_bytes([notes[at], notes[at + 1], notes[at + 2], notes[at + 3]])
        };
        let size = |at| usize::try_from(word(at)).map_err(drop);
        let (name_size, desc_size, kind) = (size(0)?, size(4)?, word(8));
        let desc_at = HEADER.checked_add(padded(name_size, padding)?).ok_or(())?;
        let desc_end = desc_at.checked_add(desc_size).ok_or(())?;
        let name = notes.get(HEADER..HEADER.saturating_add(name_size)).ok_or(())?;
        let desc = notes.get(desc_at..desc_end).ok_or(())?;
        if name == NAME && kind == PHYS32_ENTRY {
            return number(desc).map(Some).ok_or(());
        }
        // The last note's padding may be missing.
        notes = notes.get(desc_at + padded(desc_size, padding)?..).unwrap_or_default();
    }
    Ok(None)
}

fn padded(size: usize, padding: usize) -> Result<usize, ()> {
    size.checked_next_multiple_of(padding).ok_or(())
}

fn number(desc: &[u8]) -> Option<u64> {
    match desc.len() {
        4 => Some(u32::from_le_bytes(desc.try_into().ok()?).into()),
        8 => Some(u64::from_le_bytes(desc.try_into().ok()?)),
        _ => None,
    }
}
