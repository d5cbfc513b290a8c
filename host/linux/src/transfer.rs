//! Reads and writes of descriptors, straight into and from guest memory.
//!
//! A guest may change its memory during the call, so no Rust reference to it is made: the kernel
//! gets the pointer that [`GuestSlice`] has checked.

#![allow(unsafe_code)]

use crate::sys::{fd, syscall};
use hypervisor::memory::GuestSlice;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// pread(2).
pub(crate) fn pread(file: BorrowedFd<'_>, to: GuestSlice<'_>, at: u64) -> Result<usize, Errno> {
    at_offset(libc::SYS_pread64, file, to, at)
}

/// pwrite(2).
pub(crate) fn pwrite(file: BorrowedFd<'_>, from: GuestSlice<'_>, at: u64) -> Result<usize, Errno> {
    at_offset(libc::SYS_pwrite64, file, from, at)
}

fn at_offset(
    call: i64,
    file: BorrowedFd<'_>,
    slice: GuestSlice<'_>,
    at: u64,
) -> Result<usize, Errno> {
    let at = usize::try_from(at).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: a slice is mapped for its length; the kernel checks its permissions itself.
    unsafe { syscall(call, [fd(file), slice.as_ptr() as usize, slice.len(), at, 0, 0]) }
}

/// read(2).
pub(crate) fn read(file: BorrowedFd<'_>, to: GuestSlice<'_>) -> Result<usize, Errno> {
    // SAFETY: as in `at_offset`.
    unsafe { syscall(libc::SYS_read, [fd(file), to.as_ptr() as usize, to.len(), 0, 0, 0]) }
}

/// write(2).
pub(crate) fn write(file: BorrowedFd<'_>, from: GuestSlice<'_>) -> Result<usize, Errno> {
    // SAFETY: as in `at_offset`.
    unsafe { syscall(libc::SYS_write, [fd(file), from.as_ptr() as usize, from.len(), 0, 0, 0]) }
}

/// writev(2) of a header of ours and the guest's bytes after it.
pub(crate) fn write_after(
    file: BorrowedFd<'_>,
    header: &[u8],
    from: GuestSlice<'_>,
) -> Result<usize, Errno> {
    let vector = [
        libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: header.len() },
        libc::iovec { iov_base: from.as_ptr().cast(), iov_len: from.len() },
    ];
    let args = [fd(file), vector.as_ptr() as usize, vector.len(), 0, 0, 0];
    // SAFETY: both parts are mapped for their lengths, and the kernel only reads them.
    unsafe { syscall(libc::SYS_writev, args) }
}
