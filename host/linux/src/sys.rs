//! System calls that rustix has not got in the form that is needed, made inline like its own.

#![allow(unsafe_code)]

use core::arch::asm;
use rustix::event::epoll::{Event, EventData, EventFlags};
use rustix::event::{PollFd, Timespec};
use rustix::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
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

/// epoll_pwait(2), either just looking or without a timeout.
pub(crate) fn epoll_pwait(
    set: BorrowedFd<'_>,
    events: &mut [Event],
    forever: bool,
) -> Result<usize, Errno> {
    let timeout = if forever { usize::MAX } else { 0 };
    let args = [fd(set), events.as_mut_ptr() as usize, events.len(), timeout, 0, 0];
    // SAFETY: as in `epoll_pwait2`.
    unsafe { syscall(libc::SYS_epoll_pwait, args) }
}

/// epoll_ctl(2), EPOLL_CTL_MOD.
pub(crate) fn epoll_modify(
    set: BorrowedFd<'_>,
    of: RawFd,
    data: u64,
    flags: EventFlags,
) -> Result<(), Errno> {
    let event = Event { flags, data: EventData::new_u64(data) };
    let modify = usize::try_from(libc::EPOLL_CTL_MOD).unwrap_or(0);
    let of = usize::try_from(of).unwrap_or(usize::MAX);
    let args = [fd(set), modify, of, &raw const event as usize, 0, 0];
    // SAFETY: the event is valid for the call.
    unsafe { syscall(libc::SYS_epoll_ctl, args) }.map(drop)
}

/// ppoll(2) for so many milliseconds with no signal blocked: one that is pending interrupts it.
pub(crate) fn ppoll(fds: &mut [PollFd<'_>], ms: i64) -> Result<usize, Errno> {
    let time = Timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 };
    let mask = 0u64;
    let args = [
        fds.as_mut_ptr() as usize,
        fds.len(),
        &raw const time as usize,
        &raw const mask as usize,
        size_of::<u64>(),
        0,
    ];
    // SAFETY: PollFd is `struct pollfd`; all are valid for the call; the mask is the kernel's 8
    // bytes.
    unsafe { syscall(libc::SYS_ppoll, args) }
}

/// Makes the kernel send this thread SIGIO when something comes in (fcntl(2), F_SETOWN_EX).
pub(crate) fn announce_input(of: BorrowedFd<'_>) -> Result<(), Errno> {
    #[repr(C)]
    struct Owner {
        kind: i32,
        thread: i32,
    }
    const SETOWN_EX: usize = 15;
    const OWNER_TID: i32 = 0;
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    let owner = Owner { kind: OWNER_TID, thread };
    let args = [fd(of), SETOWN_EX, &raw const owner as usize, 0, 0, 0];
    // SAFETY: the structure is the kernel's and valid for the call.
    unsafe { syscall(libc::SYS_fcntl, args) }?;
    let flags = rustix::fs::fcntl_getfl(of)?;
    let asynchronous = rustix::fs::OFlags::from_bits_retain(libc::O_ASYNC.cast_unsigned());
    rustix::fs::fcntl_setfl(of, flags | asynchronous)
}

/// close(2). A debug build of the standard library would look first whether it is open.
pub(crate) fn close(of: OwnedFd) {
    let fd = usize::try_from(of.into_raw_fd()).unwrap_or(usize::MAX);
    // SAFETY: its owner gave it away.
    let _ = unsafe { syscall(libc::SYS_close, [fd, 0, 0, 0, 0, 0]) };
}

/// Makes a timerfd readable as soon as possible. Safe in a signal handler.
pub(crate) fn fire_timer(timer: RawFd) {
    let now = [0i64, 0, 0, 1];
    let timer = usize::try_from(timer).unwrap_or(usize::MAX);
    let args = [timer, 0, now.as_ptr() as usize, 0, 0, 0];
    // SAFETY: the four words are a `struct itimerspec`, valid for the call.
    let _ = unsafe { syscall(libc::SYS_timerfd_settime, args) };
}

/// nanosleep(2), cut short by a signal. It is the way to wait that the narrowest outer filters
/// know.
pub(crate) fn sleep_ms(ms: i64) {
    let time = Timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 };
    // SAFETY: the time is valid for the call; the rest of it is not asked for.
    let _ = unsafe { syscall(libc::SYS_nanosleep, [&raw const time as usize, 0, 0, 0, 0, 0]) };
}

pub(crate) fn fd(fd: BorrowedFd<'_>) -> usize {
    usize::try_from(fd.as_raw_fd()).unwrap_or(usize::MAX)
}

/// An error number in words, as the C library's err(3) prints it.
pub(crate) struct Words(pub(crate) Errno);

impl core::fmt::Display for Words {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match hypervisor::host::errno::words(self.0.raw_os_error()) {
            Some(words) => f.write_str(words),
            None => write!(f, "{}", self.0),
        }
    }
}
