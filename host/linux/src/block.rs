//! Disks: files and block devices.
//!
//! What a write has returned `Ok` for is in the kernel's hands: it outlives this process, however
//! that ends.

use crate::confine::Rule;
use crate::sys::Words;
use crate::transfer::{pread, pwrite};
use hypervisor::host::{BlockStore, HostError};
use hypervisor::memory::GuestSlice;
use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags, SeekFrom, fdatasync, open, seek};
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
        let file = open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| format!("Could not open block device: {shown}: {}", Words(e)))?;
        let capacity = seek(&file, SeekFrom::End(0))
            .map_err(|e| format!("{shown}: Could not determine capacity: {}", Words(e)))?;
        Ok(Self { file, capacity })
    }

    /// Opens it for reading, and for writing unless it is `read_only`.
    ///
    /// # Errors
    /// The system's.
    pub fn open_as(path: &OsStr, read_only: bool) -> Result<Self, Errno> {
        let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
        let file = open(path, access | OFlags::CLOEXEC, Mode::empty())?;
        let capacity = seek(&file, SeekFrom::End(0))?;
        Ok(Self { file, capacity })
    }

    /// Its descriptor.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The system calls that serving it takes.
    pub fn rules(&self) -> Vec<Rule> {
        [
            (libc::SYS_pread64, "block read"),
            (libc::SYS_pwrite64, "block write"),
            (libc::SYS_fdatasync, "block flush"),
        ]
        .map(|(call, why)| Rule::on_fd(call, self.fd(), why))
        .into()
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
    let mut done = 0;
    while let Some(rest) = slice.part(done, slice.len() - done).filter(|rest| !rest.is_empty()) {
        match transfer(rest, offset + done as u64) {
            // The file has become shorter than it was.
            Ok(0) => return Err(HostError::from_errno(Errno::IO.raw_os_error(), what)),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(e) => return Err(HostError::from_errno(e.raw_os_error(), what)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
