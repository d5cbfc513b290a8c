//! Changes to a process between fork and exec.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Limits the size that a file may be given.
pub fn limit_file_size(command: &mut Command, bytes: u64) {
    limit(command, libc::RLIMIT_FSIZE, bytes);
}

/// Limits the numbers that descriptors may have.
pub fn limit_descriptors(command: &mut Command, number: u64) {
    limit(command, libc::RLIMIT_NOFILE, number);
}

fn limit(command: &mut Command, what: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    let apply = move || {
        // SAFETY: the limit lives during the call.
        check(unsafe { libc::setrlimit(what, &limit) })
    };
    // SAFETY: one system call, allowed between fork and exec.
    unsafe { command.pre_exec(apply) };
}

/// Hands these signals down as ignored.
pub fn ignore(command: &mut Command, signals: Vec<i32>) {
    let apply = move || {
        for &signal in &signals {
            // SAFETY: no memory is touched. Two signals cannot be ignored, which is as well.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        Ok(())
    };
    // SAFETY: one system call for each, allowed between fork and exec.
    unsafe { command.pre_exec(apply) };
}

/// Hands all signals down as blocked.
pub fn block_all(command: &mut Command) {
    let apply = || {
        // SAFETY: the set is filled before it is used, and lives during the call.
        check(unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
        })
    };
    // SAFETY: one system call, allowed between fork and exec.
    unsafe { command.pre_exec(apply) };
}

/// Hands a umask down that takes every permission.
pub fn strict_umask(command: &mut Command) {
    let apply = || {
        // SAFETY: no memory is touched; it cannot fail.
        unsafe { libc::umask(0o777) };
        Ok(())
    };
    // SAFETY: one system call, allowed between fork and exec.
    unsafe { command.pre_exec(apply) };
}

/// Lets the process inherit a descriptor of ours, under the same number.
pub fn inherit(command: &mut Command, fd: RawFd) {
    let apply = move || {
        // SAFETY: no memory is touched.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })
    };
    // SAFETY: one system call, allowed between fork and exec.
    unsafe { command.pre_exec(apply) };
}

/// Keeps a descriptor back that we may have been given ourselves.
pub fn keep_back(command: &mut Command, fd: RawFd) {
    let apply = move || {
        // SAFETY: no memory is touched. Where it is not open, there is nothing to keep back.
        let _ = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        Ok(())
    };
    // SAFETY: one system call, allowed between fork and exec.
    unsafe { command.pre_exec(apply) };
}

/// Starts the process without standard input, output and error.
pub fn close_standard(command: &mut Command) {
    let apply = || {
        // SAFETY: no memory is touched.
        (0..3).try_for_each(|fd| check(unsafe { libc::close(fd) }))
    };
    // SAFETY: three system calls, allowed between fork and exec.
    unsafe { command.pre_exec(apply) };
}

/// How many bytes a pipe takes that nobody reads.
///
/// # Panics
/// If it is no pipe.
pub fn pipe_size(of: &impl AsRawFd) -> usize {
    // SAFETY: asks for a number.
    let size = unsafe { libc::fcntl(of.as_raw_fd(), libc::F_GETPIPE_SZ) };
    usize::try_from(size).expect("a pipe")
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
