//! The segments of an image: which bytes of the file go where in the guest's memory, and what the
//! guest may do with them.
//!
//! Rules of Solo5 v0.12.1 `tenders/common/elf.c`, with two differences. A segment without bytes
//! in the file (`.bss` alone) is a segment like any other here, where Solo5 passes over it; that
//! way it is known to fit before the guest runs. And what must hold for all memory sizes is
//! checked here, before there is any memory.

use super::arch::GuestArch;
use super::elf::{PT_LOAD, ProgramHeader};
use super::layout::MAX_MEMORY;
use super::solo5_abi::GUEST_MIN_BASE;
use crate::memory::Perms;
use alloc::vec::Vec;
use core::ops::Range;

/// A part of an image in the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Index of its program header, for messages.
    pub index: usize,
    /// The pages that it has for itself.
    pub range: Range<u64>,
    /// Where its bytes go; inside of `range`.
    pub vaddr: u64,
    /// Where they are in the file.
    pub file_offset: u64,
    /// How many they are. The rest of `range` stays zero.
    pub file_size: u64,
    /// What the guest may do with it; never both write and execute.
    pub perms: Perms,
}

/// Why a segment is refused. All but the index are as the program header has them, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("phdr[{index}]: {fault}")]
pub struct SegmentError {
    /// Index of the program header.
    pub index: usize,
    /// What is wrong with it.
    pub fault: SegmentFault,
}

/// What can be wrong with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentFault {
    /// It starts below where a guest may be loaded, by itself or once aligned.
    #[error("segment starts at {start:#x}, below the lowest address {GUEST_MIN_BASE:#x}")]
    BelowBase {
        /// The aligned start.
        start: u64,
    },
    /// The program headers are not sorted.
    #[error("segment at {vaddr:#x} comes after one at {previous:#x}: not in ascending order")]
    NotAscending {
        /// Its address.
        vaddr: u64,
        /// The address of the one before.
        previous: u64,
    },
    /// The alignment is 0 or not a power of two.
    #[error("alignment {0:#x} is not a power of two")]
    Alignment(u64),
    /// A page would belong to two segments.
    #[error("segment starts at {start:#x} and overlaps the one before, which ends at {end:#x}")]
    Overlap {
        /// The aligned start.
        start: u64,
        /// The aligned end of the one before.
        end: u64,
    },
    /// More bytes in the file than in memory.
    #[error("segment has {filesz} bytes in the file but only {memsz} in memory")]
    FileLarger {
        /// Bytes in the file.
        filesz: u64,
        /// Bytes in memory.
        memsz: u64,
    },
    /// Its end, aligned, is beyond the last address.
    #[error("{memsz:#x} bytes at {vaddr:#x} wrap around the end of the address space")]
    Wraps {
        /// Its address.
        vaddr: u64,
        /// Bytes in memory.
        memsz: u64,
    },
    /// Its end is beyond what any hvt guest can have.
    #[error("segment ends at {0:#x}, beyond the largest memory of a guest, 4 GiB")]
    Huge(u64),
    /// Start or end is not on a page boundary after alignment.
    #[error("segment boundary {0:#x} is not aligned to a page")]
    Misaligned(u64),
    /// Writable and executable at once.
    #[error("segment requests WRITE and EXEC permissions")]
    WriteExec,
    /// Its place in the file wraps around.
    #[error("{filesz:#x} bytes at file offset {offset:#x} wrap around")]
    FileWraps {
        /// Offset in the file.
        offset: u64,
        /// Bytes in the file.
        filesz: u64,
    },
    /// Its place in the file is not all there.
    #[error("{filesz} bytes at file offset {offset} are beyond the end of the file ({file} bytes)")]
    Truncated {
        /// Offset in the file.
        offset: u64,
        /// Bytes in the file.
        filesz: u64,
        /// Size of the file.
        file: u64,
    },
}

/// Collects the segments of a file of `file` bytes, in ascending order.
///
/// # Errors
/// [`SegmentError`] for the first that breaks a rule.
pub fn collect(
    headers: &[ProgramHeader],
    arch: GuestArch,
    file: u64,
) -> Result<Vec<Segment>, SegmentError> {
    let mut segments: Vec<Segment> = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        if header.kind.get() != PT_LOAD || (header.filesz.get() == 0 && header.memsz.get() == 0) {
            continue;
        }
        let segment = place(index, header, arch)
            .and_then(|segment| follows(&segment, segments.last()).map(|()| segment))
            .and_then(|segment| check_file(&segment, file).map(|()| segment));
        segments.push(segment.map_err(|fault| SegmentError { index, fault })?);
    }
    Ok(segments)
}

/// What a program header means by itself.
fn place(index: usize, header: &ProgramHeader, arch: GuestArch) -> Result<Segment, SegmentFault> {
    let (vaddr, memsz, filesz) = (header.vaddr.get(), header.memsz.get(), header.filesz.get());
    if filesz > memsz {
        return Err(SegmentFault::FileLarger { filesz, memsz });
    }
    let range = aligned(vaddr, memsz, header.align.get())?;
    if range.start < GUEST_MIN_BASE {
        return Err(SegmentFault::BelowBase { start: range.start });
    }
    if range.end > MAX_MEMORY {
        return Err(SegmentFault::Huge(range.end));
    }
    for boundary in [range.start, range.end] {
        if !boundary.is_multiple_of(arch.page_size()) {
            return Err(SegmentFault::Misaligned(boundary));
        }
    }
    let perms = permissions(header.flags.get())?;
    let file_offset = header.offset.get();
    Ok(Segment { index, range, vaddr, file_offset, file_size: filesz, perms })
}

/// The range with its start rounded down and its end rounded up.
fn aligned(vaddr: u64, memsz: u64, align: u64) -> Result<Range<u64>, SegmentFault> {
    if !align.is_power_of_two() {
        return Err(SegmentFault::Alignment(align));
    }
    let end = vaddr.checked_add(memsz).and_then(|end| end.checked_next_multiple_of(align));
    let end = end.ok_or(SegmentFault::Wraps { vaddr, memsz })?;
    Ok(vaddr - vaddr % align..end)
}

fn permissions(flags: u32) -> Result<Perms, SegmentFault> {
    let mut perms = Perms::empty();
    perms.set(Perms::EXEC, flags & 1 != 0);
    perms.set(Perms::WRITE, flags & 2 != 0);
    perms.set(Perms::READ, flags & 4 != 0);
    if perms.contains(Perms::WRITE | Perms::EXEC) {
        return Err(SegmentFault::WriteExec);
    }
    Ok(perms)
}

fn follows(segment: &Segment, previous: Option<&Segment>) -> Result<(), SegmentFault> {
    let Some(previous) = previous else { return Ok(()) };
    if segment.vaddr < previous.vaddr {
        let (vaddr, previous) = (segment.vaddr, previous.vaddr);
        return Err(SegmentFault::NotAscending { vaddr, previous });
    }
    let (start, end) = (segment.range.start, previous.range.end);
    if start < end {
        return Err(SegmentFault::Overlap { start, end });
    }
    Ok(())
}

fn check_file(segment: &Segment, file: u64) -> Result<(), SegmentFault> {
    let (offset, filesz) = (segment.file_offset, segment.file_size);
    if filesz == 0 {
        return Ok(());
    }
    let end = offset.checked_add(filesz).ok_or(SegmentFault::FileWraps { offset, filesz })?;
    if end > file {
        return Err(SegmentFault::Truncated { offset, filesz, file });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
