//! System calls that rustix has not got in the form that is needed, made inline like its own.

#![allow(unsafe_code)]

use core::arch::asm;
use rustix::event::{Timespec, epoll::Event};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;

/// A system call with up to six arguments.
///
/// # Safety
/// As the system call demands of its arguments.
#[expect(clippy::cast_possible_truncation, reason = "x86_64 is a 64-bit target")]
pub(crate) unsafe fn syscall(number: i64, args: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    // SAFETY: the arguments are the caller's responsibility; the kernel changes RAX, RCX, R11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    match usize::try_from(result) {
        Ok(value) => Ok(value),
        Err(_) => Err(Errno::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EINVAL))),
    }
}

/// epoll_pwait2(2).
pub(crate) fn epoll_pwait2(
    set: BorrowedFd<'_>,
    events: &mut [Event],
    timeout: &Timespec,
) -> Result<usize, Errno> {
    let args = [fd(set), events.as_mut_ptr() as usize, events.len(), timeout as *const _ as usize];
    let [a, b, c, d] = args;
    // SAFETY: the events and the timeout are valid for the call; no signal mask is given.
    unsafe { syscall(libc::SYS_epoll_pwait2, [a, b, c, d, 0, 0]) }
}

/// epoll_pwait(2) without a timeout.
pub(crate) fn epoll_pwait(set: BorrowedFd<'_>, events: &mut [Event]) -> Result<usize, Errno> {
    let forever = usize::MAX;
    let args = [fd(set), events.as_mut_ptr() as usize, events.len(), forever, 0, 0];
    // SAFETY: as in `epoll_pwait2`.
    unsafe { syscall(libc::SYS_epoll_pwait, args) }
}

fn fd(fd: BorrowedFd<'_>) -> usize {
    usize::try_from(fd.as_raw_fd()).unwrap_or(usize::MAX)
}
