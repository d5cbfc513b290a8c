//! Locks on disks (fcntl(2), "Open file description locks"): a disk that one guest may write is
//! nobody else's, and readers keep writers away. QEMU's locks are of the same kind and on the same
//! files, so a disk is not shared with a QEMU by mistake either.
//!
//! A lock goes with the last copy of its descriptor, however the process ends.

#![allow(unsafe_code)]

use crate::blob::OpenError;
use crate::sys::{sleep_ms, syscall};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;

/// `F_OFD_SETLK` of <fcntl.h>.
const SET_LOCK: usize = 37;
/// A guest that was just ended holds its disks for a moment longer: so many milliseconds.
const PATIENCE: i64 = 1000;
const STEP: i64 = 10;

/// Locks a disk to read it, or to read and write it. A file system without locks has none.
///
/// # Errors
/// [`OpenError::InUse`] if somebody else uses it.
pub fn lock(file: &OwnedFd, read_only: bool) -> Result<(), OpenError> {
    for _ in 0..PATIENCE / STEP {
        match try_lock(file, read_only) {
            Err(Errno::AGAIN | Errno::ACCESS) => sleep_ms(STEP),
            _ => return Ok(()),
        }
    }
    Err(OpenError::InUse)
}

fn try_lock(file: &OwnedFd, read_only: bool) -> Result<(), Errno> {
    let kind = if read_only { libc::F_RDLCK } else { libc::F_WRLCK };
    // From the beginning to the end, however long that is.
    let whole = libc::flock {
        l_type: i16::try_from(kind).unwrap_or(0),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or(0),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let fd = usize::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
    // SAFETY: the structure is valid for the call.
    unsafe { syscall(libc::SYS_fcntl, [fd, SET_LOCK, (&raw const whole) as usize, 0, 0, 0]) }
        .map(drop)
}
