//! Reads and writes of descriptors, straight into and from guest memory.
//!
//! A guest may change its memory during the call, so no Rust reference to it is made: the kernel
//! gets the pointer that [`GuestSlice`] has checked.

#![allow(unsafe_code)]

use crate::sys::{fd, syscall};
use arrayvec::ArrayVec;
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

/// How many pieces go into one call of [`preadv`] or [`pwritev`].
pub(crate) const PIECES: usize = 32;

/// preadv(2); of at most [`PIECES`].
pub(crate) fn preadv(file: BorrowedFd<'_>, to: &[GuestSlice<'_>], at: u64) -> Result<usize, Errno> {
    pieces_at_offset(libc::SYS_preadv, file, to, at)
}

/// pwritev(2); of at most [`PIECES`].
pub(crate) fn pwritev(
    file: BorrowedFd<'_>,
    from: &[GuestSlice<'_>],
    at: u64,
) -> Result<usize, Errno> {
    pieces_at_offset(libc::SYS_pwritev, file, from, at)
}

fn pieces_at_offset(
    call: i64,
    file: BorrowedFd<'_>,
    pieces: &[GuestSlice<'_>],
    at: u64,
) -> Result<usize, Errno> {
    let at = usize::try_from(at).map_err(|_| Errno::OVERFLOW)?;
    let vector: ArrayVec<_, PIECES> = pieces
        .iter()
        .take(PIECES)
        .map(|piece| libc::iovec { iov_base: piece.as_ptr().cast(), iov_len: piece.len() })
        .collect();
    // SAFETY: every slice is mapped for its length; the kernel checks their permissions itself.
    unsafe { syscall(call, [fd(file), vector.as_ptr() as usize, vector.len(), at, 0, 0]) }
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

/// read(2) into memory of ours.
pub(crate) fn read_own(file: BorrowedFd<'_>, to: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the memory is ours, and initialised.
    unsafe { syscall(libc::SYS_read, [fd(file), to.as_mut_ptr() as usize, to.len(), 0, 0, 0]) }
}

/// writev(2) of bytes of ours and the guest's after them, to a socket that does not block. Not
/// sendmsg(2), which a filter could not keep from passing descriptors on. SIGPIPE is ignored by
/// every process that serves a guest.
pub(crate) fn write_parts(
    socket: BorrowedFd<'_>,
    own: &[u8],
    guest: Option<GuestSlice<'_>>,
) -> Result<usize, Errno> {
    let (base, len) = guest.map_or((core::ptr::null_mut(), 0), |g| (g.as_ptr(), g.len()));
    let parts = [
        libc::iovec { iov_base: own.as_ptr().cast_mut().cast(), iov_len: own.len() },
        libc::iovec { iov_base: base.cast(), iov_len: len },
    ];
    let count = if guest.is_some() { 2 } else { 1 };
    // SAFETY: both parts are mapped for their lengths, and the kernel only reads them.
    unsafe { syscall(libc::SYS_writev, [fd(socket), parts.as_ptr() as usize, count, 0, 0, 0]) }
}
