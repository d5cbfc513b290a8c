//! A file that an image is loaded from.

use crate::confine::Rule;
use crate::sys::Words;
use hypervisor::host::{Blob, HostError};
use hypervisor::memory::GuestSlice;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, fstat, open, seek};
use rustix::io::Errno;
use std::ffi::OsStr;

/// Why a file cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The system's word.
    #[error("{}", Words(*.0))]
    System(#[from] Errno),
    /// It is something else, of this kind.
    #[error("this is {0}, where a file or a block device is needed")]
    Kind(&'static str),
    /// A disk that another guest uses.
    #[error("another guest uses it: stop that one, or give each its own copy")]
    InUse,
}

/// Opens what can be read at any place: a file or a block device. Nothing is waited for: a FIFO
/// without a writer is refused as any other is.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn open_file(path: &OsStr, access: OFlags) -> Result<OwnedFd, OpenError> {
    let file = open(path, access | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile | FileType::BlockDevice => Ok(file),
        FileType::Fifo => Err(OpenError::Kind("a FIFO")),
        FileType::CharacterDevice => Err(OpenError::Kind("a character device")),
        FileType::Directory => Err(OpenError::System(Errno::ISDIR)),
        _ => Err(OpenError::Kind("not a file")),
    }
}

/// An open file.
pub struct FileBlob {
    file: OwnedFd,
    len: u64,
}

impl FileBlob {
    /// Opens a file, or a block device, for reading.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &OsStr) -> Result<Self, OpenError> {
        let file = open_file(path, OFlags::RDONLY)?;
        // What fstat(2) tells of a block device's size is 0.
        let len = seek(&file, SeekFrom::End(0))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let folder = std::env::temp_dir().join(format!("blob-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let fifo = folder.join("fifo");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
        let error = |path: &OsStr| FileBlob::open(path).err().map(|error| error.to_string());
        let fifo = error(fifo.as_os_str());
        let directory = error(folder.as_os_str());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(fifo.unwrap(), "this is a FIFO, where a file or a block device is needed");
        assert_eq!(directory.unwrap(), "Is a directory");
        assert!(error(OsStr::new("/dev/null")).unwrap().starts_with("this is a character device"));
        assert!(FileBlob::open(OsStr::new("/proc/self/exe")).unwrap().len() > 1000);
    }
}
