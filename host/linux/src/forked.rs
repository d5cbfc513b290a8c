//! Tests of what cannot be undone: they run in a forked child.

#![allow(unsafe_code)]

use crate::sys::syscall;
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

/// Ends this process from here, not from the C library's code.
pub fn exit(status: u8) -> ! {
    // SAFETY: ends the child without running anything of the parent's.
    let _ = unsafe { syscall(libc::SYS_exit_group, [status.into(), 0, 0, 0, 0, 0]) };
    std::process::abort()
}

/// Runs `f` in a child, which exits with its result. `f` must not allocate, because other threads
/// of the tests may hold the allocator's lock when the child is made, and must not panic.
pub fn run(f: impl FnOnce() -> u8) -> WaitStatus {
    // SAFETY: the child runs only `f`, which keeps to the rules above.
    match unsafe { libc::fork() } {
        0 => exit(f()),
        pid => {
            let pid = Pid::from_raw(pid).filter(|_| pid > 0).expect("fork");
            waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap().1
        }
    }
}
