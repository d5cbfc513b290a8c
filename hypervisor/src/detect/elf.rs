//! ELF files, told apart by their notes (System V gABI chapter 5).
//!
//! This looks more leniently than a loader: a damaged unikernel is still one, and HVT mode's
//! loader then says what is wrong with it.

use super::{Image, ImageKind};
use crate::host::HostError;

/// Program headers that are looked at.
const MAX_HEADERS: u16 = 128;
/// Notes of one program header that are looked at.
const MAX_NOTES: u32 = 64;
const PT_NOTE: u32 = 4;
/// Solo5 `elf_abi.h`: "ABI1".
const SOLO5_ABI1: u32 = 0x3149_4241;
/// Xen `elfnote.h`: `XEN_ELFNOTE_PHYS32_ENTRY`.
const XEN_PHYS32_ENTRY: u32 = 18;

pub(super) fn look(image: &Image<'_>) -> Result<Option<ImageKind>, HostError> {
    let Some(header) = image.bytes::<64>(0)? else { return Ok(None) };
    // 64 bits, little-endian.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let (offset, size) = (u64_at(&header, 32), u16_at(&header, 54));
    let count = u16_at(&header, 56).min(MAX_HEADERS);
    for i in 0..u64::from(count) {
        let Some(at) = offset.checked_add(i * u64::from(size)) else { break };
        let Some(header) = image.bytes::<56>(at)? else { break };
        if u32_at(&header, 0) != PT_NOTE {
            continue;
        }
        if let Some(kind) = notes(image, u64_at(&header, 8), u64_at(&header, 32))? {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// The first note that tells.
fn notes(image: &Image<'_>, start: u64, length: u64) -> Result<Option<ImageKind>, HostError> {
    let end = start.saturating_add(length);
    let mut at = start;
    for _ in 0..MAX_NOTES {
        if end.saturating_sub(at) < 12 {
            break;
        }
        let Some(note) = image.bytes::<12>(at)? else { break };
        let (name, content, kind) = (u32_at(&note, 0), u32_at(&note, 4), u32_at(&note, 8));
        let Some(name_at) = at.checked_add(12) else { break };
        if name == 6 && kind == SOLO5_ABI1 && image.has(name_at, b"Solo5\0")? {
            return Ok(Some(ImageKind::Solo5));
        }
        if name == 4 && kind == XEN_PHYS32_ENTRY && image.has(name_at, b"Xen\0")? {
            return Ok(Some(ImageKind::Pvh));
        }
        let padded = |bytes: u32| u64::from(bytes).next_multiple_of(4);
        let Some(next) = name_at.checked_add(padded(name) + padded(content)) else { break };
        at = next;
    }
    Ok(None)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
