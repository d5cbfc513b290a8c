//! A file that an image is loaded from.

use crate::confine::Rule;
use hypervisor::host::{Blob, HostError};
use hypervisor::memory::GuestSlice;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use std::ffi::OsStr;

/// An open file.
pub struct FileBlob {
    file: OwnedFd,
    len: u64,
}

impl FileBlob {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &OsStr) -> Result<Self, Errno> {
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let len = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        Ok(Self { file, len })
    }

    /// The system calls that reading it takes.
    pub fn rules(&self) -> Vec<Rule> {
        vec![Rule::on_fd(libc::SYS_pread64, self.file.as_raw_fd(), "read an image again")]
    }
}

impl Blob for FileBlob {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError> {
        let failed = |e: Errno| HostError::from_errno(e.raw_os_error(), "reading the image");
        let mut done = 0;
        while let Some(rest) = to.part(done, to.len() - done).filter(|rest| !rest.is_empty()) {
            match crate::transfer::pread(
                self.file.as_fd(),
                rest,
                offset.saturating_add(done as u64),
            ) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(done)
    }
}
