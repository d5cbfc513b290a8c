//! Parts of the machine's disks: how they are named, and partition tables
//! (UEFI 2.10 §5.2.3 and §5.3; the MBR's four primary partitions).
//!
//! | name | part |
//! |---|---|
//! | `disk0` | the whole first disk |
//! | `disk0:2` | its second partition |
//! | `disk0:1M+64M` | 64 MiB from its first MiB on |

use core::ops::Range;
use hypervisor::config::parse_size;

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Partitions of a GUID partition table that are looked at.
const MAX_PARTITIONS: u32 = 128;

/// A part of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// A partition, counted from 1.
    Partition(u32),
    /// So many bytes, from a byte on; both are multiples of [`SECTOR`].
    Bytes {
        /// Where it begins.
        start: u64,
        /// How long it is.
        length: u64,
    },
}

/// Why a part cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The name means nothing.
    #[error(
        "a part of a disk is diskN, diskN:PARTITION or diskN:START+LENGTH, in whole sectors of 512 bytes"
    )]
    Name,
    /// There is no partition table.
    #[error("the disk has no partition table")]
    NoTable,
    /// There is no such partition.
    #[error("the disk has no partition of that number")]
    NoPartition,
    /// It ends behind the disk's end.
    #[error("that part ends behind the end of the disk")]
    TooLong,
    /// The disk could not be read.
    #[error("the disk's partition table cannot be read")]
    Unreadable,
}

/// Reads a name: the disk's number and the part. `None` if it names no disk of the machine.
pub fn parse(name: &str) -> Option<Result<(u32, Part), DiskError>> {
    let rest = name.strip_prefix("disk")?;
    let (number, part) = match rest.split_once(':') {
        Some((number, part)) => (number, Some(part)),
        None => (rest, None),
    };
    let number = number.parse().ok()?;
    let part = part.map_or(Some(Part::Whole), parse_part);
    Some(part.map(|part| (number, part)).ok_or(DiskError::Name))
}

fn parse_part(text: &str) -> Option<Part> {
    let Some((start, length)) = text.split_once('+') else {
        return text.parse().ok().filter(|number| *number > 0).map(Part::Partition);
    };
    let (start, length) = (parse_size(start).ok()?, parse_size(length).ok()?);
    let whole = start.is_multiple_of(SECTOR) && length.is_multiple_of(SECTOR) && length > 0;
    whole.then_some(Part::Bytes { start, length })
}

/// Reads a sector by its number. `false` where it cannot be read.
pub type ReadSector<'a> = &'a mut dyn FnMut(u64, &mut [u8; 512]) -> bool;

/// Where a part lies in a disk of `capacity` bytes.
///
/// # Errors
/// [`DiskError`].
pub fn find(part: Part, capacity: u64, read: ReadSector<'_>) -> Result<Range<u64>, DiskError> {
    let range = match part {
        Part::Whole => 0..capacity,
        Part::Bytes { start, length } => start..start.saturating_add(length),
        Part::Partition(number) => partition(number, read)?,
    };
    if range.end > capacity || range.is_empty() { Err(DiskError::TooLong) } else { Ok(range) }
}

fn partition(number: u32, read: ReadSector<'_>) -> Result<Range<u64>, DiskError> {
    let mut sector = [0; 512];
    if !read(0, &mut sector) {
        return Err(DiskError::Unreadable);
    }
    if sector[510..] != [0x55, 0xaa] {
        return Err(DiskError::NoTable);
    }
    // A protective partition stands for the newer table.
    if (0..4).any(|index| sector[446 + 16 * index + 4] == 0xee) {
        return guid_partition(number, read);
    }
    let index = usize::try_from(number - 1).ok().filter(|index| *index < 4);
    let entry = &sector[446 + 16 * index.ok_or(DiskError::NoPartition)?..];
    let (start, count) = (u64::from(word(entry, 8)), u64::from(word(entry, 12)));
    if entry[4] == 0 || count == 0 {
        return Err(DiskError::NoPartition);
    }
    Ok(start * SECTOR..(start + count) * SECTOR)
}

fn guid_partition(number: u32, read: ReadSector<'_>) -> Result<Range<u64>, DiskError> {
    let mut header = [0; 512];
    if !read(1, &mut header) {
        return Err(DiskError::Unreadable);
    }
    if !header.starts_with(b"EFI PART") {
        return Err(DiskError::NoTable);
    }
    let (entries, count, size) = (long(&header, 72), word(&header, 80), word(&header, 84));
    let index = number - 1;
    if index >= count.min(MAX_PARTITIONS) || size < 128 || !size.is_power_of_two() || size > 512 {
        return Err(DiskError::NoPartition);
    }
    let at = u64::from(index) * u64::from(size);
    let mut sector = [0; 512];
    if !read(entries.saturating_add(at / SECTOR), &mut sector) {
        return Err(DiskError::Unreadable);
    }
    let entry = &sector[usize::try_from(at % SECTOR).unwrap_or(0)..];
    let (first, last) = (long(entry, 32), long(entry, 40));
    if entry[..16] == [0; 16] || last < first {
        return Err(DiskError::NoPartition);
    }
    let end = last.checked_add(1).and_then(|end| end.checked_mul(SECTOR));
    Ok(first * SECTOR..end.ok_or(DiskError::TooLong)?)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at + 4)) << 32 | u64::from(word(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn names_are_read() {
        assert_eq!(parse("disk.img"), None);
        assert_eq!(parse("data/disk0"), None);
        assert_eq!(parse("disk0"), Some(Ok((0, Part::Whole))));
        assert_eq!(parse("disk12:3"), Some(Ok((12, Part::Partition(3)))));
        let bytes = Part::Bytes { start: 1 << 20, length: 64 << 20 };
        assert_eq!(parse("disk1:1M+64M"), Some(Ok((1, bytes))));
        for bad in ["disk0:", "disk0:0", "disk0:x", "disk0:1+512", "disk0:0+0", "disk0:0+100"] {
            assert_eq!(parse(bad), Some(Err(DiskError::Name)), "{bad}");
        }
    }

    fn found(part: Part, disk: &[u8]) -> Result<Range<u64>, DiskError> {
        find(part, disk.len() as u64, &mut |sector, to| {
            let at = usize::try_from(sector).ok().and_then(|sector| sector.checked_mul(512));
            let bytes = at.and_then(|at| disk.get(at..at.checked_add(512)?));
            bytes.map(|bytes| to.copy_from_slice(bytes)).is_some()
        })
    }

    fn mbr(kind: u8, start: u32, count: u32) -> Vec<u8> {
        let mut disk = vec![0; 64 << 10];
        disk[446 + 16 + 4] = kind;
        disk[446 + 16 + 8..][..4].copy_from_slice(&start.to_le_bytes());
        disk[446 + 16 + 12..][..4].copy_from_slice(&count.to_le_bytes());
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        disk
    }

    #[test]
    fn parts_must_lie_in_the_disk() {
        let disk = vec![0; 4096];
        assert_eq!(found(Part::Whole, &disk), Ok(0..4096));
        let bytes = |start, length| Part::Bytes { start, length };
        assert_eq!(found(bytes(512, 1024), &disk), Ok(512..1536));
        assert_eq!(found(bytes(512, 4096), &disk), Err(DiskError::TooLong));
        assert_eq!(found(bytes(u64::MAX - 511, 512), &disk), Err(DiskError::TooLong));
        assert_eq!(found(Part::Whole, &[]), Err(DiskError::TooLong));
    }

    #[test]
    fn primary_partitions_are_found() {
        let disk = mbr(0x83, 4, 8);
        assert_eq!(found(Part::Partition(2), &disk), Ok(2048..6144));
        for none in [1, 3, 5, u32::MAX] {
            assert_eq!(found(Part::Partition(none), &disk), Err(DiskError::NoPartition));
        }
        assert_eq!(found(Part::Partition(2), &mbr(0x83, 4, u32::MAX)), Err(DiskError::TooLong));
        assert_eq!(found(Part::Partition(1), &[0; 1024]), Err(DiskError::NoTable));
        assert_eq!(found(Part::Partition(1), &[]), Err(DiskError::Unreadable));
    }

    #[test]
    fn guid_partitions_are_found() {
        let mut disk = mbr(0xee, 1, u32::MAX);
        disk[512..520].copy_from_slice(b"EFI PART");
        disk[512 + 72] = 2;
        disk[512 + 80] = 128;
        disk[512 + 84] = 128;
        let entry = 1024 + 5 * 128;
        disk[entry] = 1;
        disk[entry + 32] = 40;
        disk[entry + 40] = 47;
        assert_eq!(found(Part::Partition(6), &disk), Ok(40 * 512..48 * 512));
        assert_eq!(found(Part::Partition(5), &disk), Err(DiskError::NoPartition));
        assert_eq!(found(Part::Partition(129), &disk), Err(DiskError::NoPartition));
        disk[entry + 40..entry + 48].copy_from_slice(&[0xff; 8]);
        assert_eq!(found(Part::Partition(6), &disk), Err(DiskError::TooLong));
        disk[512 + 72..512 + 80].copy_from_slice(&[0xff; 8]);
        assert_eq!(found(Part::Partition(6), &disk), Err(DiskError::Unreadable));
        disk[512] = 0;
        assert_eq!(found(Part::Partition(6), &disk), Err(DiskError::NoTable));
    }
}
