//! Pieces of guest memory to and from a disk, through a buffer of the disk's own.
//!
//! A guest may cut its data as it likes (VIRTIO 1.3 §2.7.4): a piece need not be whole sectors.
//! So the pieces are taken as one run of bytes, and the disk sees as few requests as the buffer
//! allows.

use crate::disk::SECTOR;
use hypervisor::host::{HostError, HostErrorKind, Pieces};
use hypervisor::memory::GuestSlice;

/// A disk with a buffer.
pub trait Staged {
    /// Bytes of the buffer; whole sectors.
    const SIZE: usize;

    /// Nothing that is still wanted is in the buffer, and more is to come: others may use the disk.
    fn pause(&self) {}

    /// Copies into the buffer, from its byte `at` on.
    fn fill(&self, at: usize, from: GuestSlice<'_>);

    /// Copies out of the buffer, from its byte `at` on.
    fn take(&self, at: usize, to: GuestSlice<'_>);

    /// Reads `count` bytes, whole sectors, into the buffer.
    ///
    /// # Errors
    /// The disk's.
    fn read(&self, sector: u64, count: usize) -> Result<(), HostError>;

    /// Writes the buffer's first `count` bytes, whole sectors.
    ///
    /// # Errors
    /// The disk's.
    fn write(&self, sector: u64, count: usize) -> Result<(), HostError>;
}

/// Fills the pieces, `len` bytes together, with what is at byte `at` of the disk.
///
/// # Errors
/// The disk's, or if these are not whole sectors.
pub fn read<D: Staged>(disk: &D, at: u64, len: u64, to: Pieces<'_, '_>) -> Result<(), HostError> {
    let mut sector = whole_sectors(at)?;
    let mut left = whole_sectors(len)? * SECTOR;
    let (mut have, mut used) = (0, 0);
    for piece in to {
        let mut done = 0;
        while done < piece.len() {
            if used == have {
                have = usize::try_from(left).unwrap_or(usize::MAX).min(D::SIZE);
                if have == 0 {
                    return Err(ODD);
                }
                if used > 0 {
                    disk.pause();
                }
                disk.read(sector, have)?;
                (sector, left, used) = (sector + have as u64 / SECTOR, left - have as u64, 0);
            }
            let count = (piece.len() - done).min(have - used);
            let Some(part) = piece.part(done, count) else { return Err(ODD) };
            disk.take(used, part);
            (used, done) = (used + count, done + count);
        }
    }
    Ok(())
}

/// Writes the pieces, `len` bytes together, at byte `at` of the disk.
///
/// # Errors
/// The disk's, or if these are not whole sectors; what came before may have been written.
pub fn write<D: Staged>(
    disk: &D,
    at: u64,
    len: u64,
    from: Pieces<'_, '_>,
) -> Result<(), HostError> {
    let mut sector = whole_sectors(at)?;
    let mut left = whole_sectors(len)? * SECTOR;
    let mut filled = 0;
    for piece in from {
        let mut done = 0;
        while done < piece.len() {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(D::SIZE);
            let count = (piece.len() - done).min(room - filled);
            let Some(part) = piece.part(done, count).filter(|part| !part.is_empty()) else {
                return Err(ODD);
            };
            disk.fill(filled, part);
            (filled, done) = (filled + count, done + count);
            if filled == room {
                disk.write(sector, filled)?;
                sector += filled as u64 / SECTOR;
                (left, filled) = (left - filled as u64, 0);
                if left > 0 {
                    disk.pause();
                }
            }
        }
    }
    if filled == 0 && left == 0 { Ok(()) } else { Err(ODD) }
}

fn whole_sectors(bytes: u64) -> Result<u64, HostError> {
    if bytes.is_multiple_of(SECTOR) { Ok(bytes / SECTOR) } else { Err(ODD) }
}

const ODD: HostError = HostError::new(
    HostErrorKind::Other,
    "a disk of the machine is read and written in whole sectors of 512 bytes",
);

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::{Cell, RefCell};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    struct Disk {
        bytes: RefCell<Vec<u8>>,
        buffer: RefCell<Vec<u8>>,
        requests: RefCell<Vec<(u64, usize)>>,
        pauses: Cell<usize>,
    }

    const SECTORS: usize = 16;

    impl Disk {
        fn new() -> Self {
            let bytes = (0..SECTORS * 512).map(|i| u8::try_from(i / 3 % 251).unwrap()).collect();
            let buffer = vec![0; Self::SIZE].into();
            let (requests, pauses) = Default::default();
            Self { bytes: RefCell::new(bytes), buffer, requests, pauses }
        }

        fn place(&self, sector: u64, count: usize) -> core::ops::Range<usize> {
            assert!(count > 0 && count.is_multiple_of(512) && count <= Self::SIZE);
            self.requests.borrow_mut().push((sector, count));
            let start = usize::try_from(sector).unwrap() * 512;
            start..start + count
        }
    }

    impl Staged for Disk {
        const SIZE: usize = 2048;

        /// Others use the buffer meanwhile.
        fn pause(&self) {
            self.buffer.borrow_mut().fill(0xee);
            self.pauses.set(self.pauses.get() + 1);
        }
        fn fill(&self, at: usize, from: GuestSlice<'_>) {
            let mut buffer = self.buffer.borrow_mut();
            assert_eq!(from.copy_to(&mut buffer[at..]), from.len());
        }
        fn take(&self, at: usize, to: GuestSlice<'_>) {
            assert_eq!(to.copy_from(&self.buffer.borrow()[at..]), to.len());
        }
        fn read(&self, sector: u64, count: usize) -> Result<(), HostError> {
            let place = self.place(sector, count);
            self.buffer.borrow_mut()[..count].copy_from_slice(&self.bytes.borrow()[place]);
            Ok(())
        }
        fn write(&self, sector: u64, count: usize) -> Result<(), HostError> {
            let place = self.place(sector, count);
            self.bytes.borrow_mut()[place].copy_from_slice(&self.buffer.borrow()[..count]);
            Ok(())
        }
    }

    /// Cuts, and with them pieces of a whole number of sectors.
    fn cut(mut bytes: Vec<u8>, cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut pieces = vec![];
        for cut in cuts {
            let rest = bytes.split_off((*cut).min(bytes.len()));
            pieces.push(core::mem::replace(&mut bytes, rest));
        }
        pieces.push(bytes);
        pieces
    }

    proptest! {
        #[test]
        fn any_cut_is_one_run_of_bytes(
            first in 0..SECTORS,
            sectors in 0..SECTORS,
            cuts in proptest::collection::vec(0usize..1500, 0..8),
        ) {
            let sectors = sectors.min(SECTORS - first);
            let (at, len) = (first * 512, sectors * 512);
            let disk = Disk::new();
            let expected = disk.bytes.borrow()[at..at + len].to_vec();
            let mut pieces = cut(vec![0; len], &cuts);
            let mut slices = pieces.iter_mut().map(|piece| GuestSlice::from_host(piece));
            prop_assert_eq!(read(&disk, at as u64, len as u64, &mut slices), Ok(()));
            prop_assert_eq!(pieces.concat(), expected);
            let requests = len.div_ceil(Disk::SIZE);
            prop_assert_eq!(disk.requests.take().len(), requests);
            prop_assert_eq!(disk.pauses.take(), requests.saturating_sub(1));

            let new: Vec<u8> = (0..len).map(|i| u8::try_from(i % 253).unwrap()).collect();
            let mut whole = disk.bytes.borrow().clone();
            whole[at..at + len].copy_from_slice(&new);
            let mut pieces = cut(new, &cuts);
            let mut slices = pieces.iter_mut().map(|piece| GuestSlice::from_host(piece));
            prop_assert_eq!(write(&disk, at as u64, len as u64, &mut slices), Ok(()));
            prop_assert_eq!(disk.requests.take().len(), requests);
            prop_assert_eq!(disk.pauses.take(), requests.saturating_sub(1));
            prop_assert_eq!(disk.bytes.take(), whole);
        }
    }

    #[test]
    fn less_than_a_sector_is_refused() {
        let disk = Disk::new();
        let mut bytes = [0; 700];
        let slice = GuestSlice::from_host(&mut bytes);
        let one = || core::iter::once(slice);
        assert_eq!(read(&disk, 0, 700, &mut one()), Err(ODD));
        assert_eq!(read(&disk, 100, 512, &mut one()), Err(ODD));
        assert_eq!(read(&disk, 0, 512, &mut one()), Err(ODD), "more room than was said");
        assert_eq!(write(&disk, 0, 700, &mut one()), Err(ODD));
        assert_eq!(write(&disk, 1, 512, &mut one()), Err(ODD));
        assert_eq!(write(&disk, 0, 1024, &mut one()), Err(ODD), "less than was said");
        assert_eq!(disk.requests.take(), [(0, 512)], "only that of `more room`");
        assert_eq!(write(&disk, 0, 512, &mut one()), Err(ODD), "more than was said");
        assert_eq!(disk.requests.take(), [(0, 512)], "and no more of it is written");
    }
}
