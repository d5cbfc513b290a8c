//! Disks: files and block devices.
//!
//! One that a guest may write is locked, so that no two guests use it (`lock`).
//!
//! What a write has returned `Ok` for is in the kernel's hands: it outlives this process, however
//! that ends.

mod lock;

use crate::blob::{OpenError, open_file};
use crate::confine::{Rule, Within};
use crate::sys::Words;
use crate::transfer::{PIECES, pread, preadv, pwrite, pwritev};
use arrayvec::ArrayVec;
use hypervisor::host::{BlockStore, HostError, Pieces};
use hypervisor::memory::GuestSlice;
use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::fs::{OFlags, SeekFrom, fdatasync, seek};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::path::Path;

/// A file or block device as a disk. Its size is fixed when it is opened.
pub struct FileBlock {
    file: OwnedFd,
    capacity: u64,
}

impl FileBlock {
    /// Opens it for reading and writing.
    ///
    /// # Errors
    /// In words for a person.
    pub fn open(path: &OsStr) -> Result<Self, String> {
        let shown = Path::new(path).display();
        let file = open_file(path, OFlags::RDWR)
            .and_then(|file| lock::lock(&file, false).map(|()| file))
            .map_err(|e| format!("Could not open block device: {shown}: {e}"))?;
        let capacity = seek(&file, SeekFrom::End(0))
            .map_err(|e| format!("{shown}: Could not determine capacity: {}", Words(e)))?;
        Ok(Self { file, capacity })
    }

    /// Opens it for reading, and for writing unless it is `read_only`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_as(path: &OsStr, read_only: bool) -> Result<Self, OpenError> {
        let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
        let file = open_file(path, access)?;
        lock::lock(&file, read_only)?;
        let capacity = seek(&file, SeekFrom::End(0))?;
        Ok(Self { file, capacity })
    }

    /// Its descriptor.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The system calls that serving a unikernel's disk takes. A file does not grow by them.
    pub fn rules(&self) -> Vec<Rule> {
        let within = Within { offset: 3, length: 2, end: self.capacity };
        vec![
            Rule::on_fd(libc::SYS_pread64, self.fd(), "block read"),
            Rule::on_fd(libc::SYS_pwrite64, self.fd(), "block write").within(within),
            Rule::on_fd(libc::SYS_fdatasync, self.fd(), "block flush"),
        ]
    }

    /// The system calls that serving a machine's disk takes, whose requests are in pieces.
    pub fn machine_rules(&self) -> Vec<Rule> {
        vec![
            Rule::on_fd(libc::SYS_preadv, self.fd(), "block read"),
            Rule::on_fd(libc::SYS_pwritev, self.fd(), "block write"),
            Rule::on_fd(libc::SYS_fdatasync, self.fd(), "block flush"),
        ]
    }
}

impl BlockStore for FileBlock {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<(), HostError> {
        whole(offset, to, "block read", |part, at| pread(self.file.as_fd(), part, at))
    }

    fn write_at(&self, offset: u64, from: GuestSlice<'_>) -> Result<(), HostError> {
        whole(offset, from, "block write", |part, at| pwrite(self.file.as_fd(), part, at))
    }

    fn read_pieces(&self, offset: u64, _: u64, to: Pieces<'_, '_>) -> Result<(), HostError> {
        all(offset, to, "block read", |pieces, at| preadv(self.file.as_fd(), pieces, at))
    }

    fn write_pieces(&self, offset: u64, _: u64, from: Pieces<'_, '_>) -> Result<(), HostError> {
        all(offset, from, "block write", |pieces, at| pwritev(self.file.as_fd(), pieces, at))
    }

    fn flush(&self) -> Result<(), HostError> {
        fdatasync(&self.file).map_err(|e| HostError::from_errno(e.raw_os_error(), "block flush"))
    }
}

/// Repeats a transfer until all of `slice` is done.
fn whole(
    offset: u64,
    slice: GuestSlice<'_>,
    what: &'static str,
    transfer: impl Fn(GuestSlice<'_>, u64) -> Result<usize, Errno>,
) -> Result<(), HostError> {
    let mut rest = slice;
    let mut at = offset;
    while !rest.is_empty() {
        let count = moved(what, || transfer(rest, at))?;
        at += count as u64;
        rest = beyond(rest, count);
    }
    Ok(())
}

/// The same of many pieces, as many at a time as a call takes.
fn all(
    offset: u64,
    mut pieces: Pieces<'_, '_>,
    what: &'static str,
    transfer: impl Fn(&[GuestSlice<'_>], u64) -> Result<usize, Errno>,
) -> Result<(), HostError> {
    let mut at = offset;
    let mut batch = ArrayVec::<_, PIECES>::new();
    loop {
        let room = batch.remaining_capacity();
        batch.extend((&mut pieces).take(room));
        batch.retain(|piece| !piece.is_empty());
        if batch.is_empty() {
            return Ok(());
        }
        let mut count = moved(what, || transfer(&batch, at))?;
        at += count as u64;
        for piece in &mut batch {
            let part = count.min(piece.len());
            (*piece, count) = (beyond(*piece, part), count - part);
        }
    }
}

/// Bytes that a transfer has moved; it is repeated if it was interrupted.
fn moved(
    what: &'static str,
    transfer: impl Fn() -> Result<usize, Errno>,
) -> Result<usize, HostError> {
    loop {
        match transfer() {
            // The file has become shorter than it was.
            Ok(0) => return Err(HostError::from_errno(Errno::IO.raw_os_error(), what)),
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(e) => return Err(HostError::from_errno(e.raw_os_error(), what)),
        }
    }
}

/// What is left behind the first `count` bytes, which are in it.
fn beyond(piece: GuestSlice<'_>, count: usize) -> GuestSlice<'_> {
    piece.part(count, piece.len().saturating_sub(count)).unwrap_or(piece)
}

#[cfg(test)]
mod tests;
