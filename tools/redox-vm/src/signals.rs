//! Sets of signals that a thread waits for, in place of being interrupted by them.

#![allow(unsafe_code)]

use host_program::inherited::is_ignored;
use std::io;
use std::ptr::null_mut;

/// Signals that end a machine. SIGHUP and SIGQUIT do not where the parent had them ignored, as
/// nohup(1) has the one and a shell's `&` the other.
pub fn ends() -> Vec<i32> {
    let kept = [libc::SIGHUP, libc::SIGQUIT].into_iter().filter(|signal| !is_ignored(*signal));
    [libc::SIGINT, libc::SIGTERM].into_iter().chain(kept).collect()
}

/// A set of signals.
#[derive(Clone, Copy)]
pub struct Signals(libc::sigset_t);

impl Signals {
    /// The set of these.
    pub fn of(numbers: &[i32]) -> Self {
        // SAFETY: all zeros is a set, which is then made an empty one.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for number in numbers {
                libc::sigaddset(&raw mut set, *number);
            }
            Self(set)
        }
    }

    /// Blocks them in this thread and those that it will start.
    ///
    /// # Errors
    /// The system's.
    pub fn block(&self) -> io::Result<()> {
        self.mask(libc::SIG_BLOCK)
    }

    /// Lets them through again.
    ///
    /// # Errors
    /// The system's.
    pub fn unblock(&self) -> io::Result<()> {
        self.mask(libc::SIG_UNBLOCK)
    }

    fn mask(&self, how: i32) -> io::Result<()> {
        // SAFETY: the set is initialised.
        match unsafe { libc::sigprocmask(how, &raw const self.0, null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits for one of them, which must be blocked; `None` if the wait was interrupted.
    pub fn wait(&self) -> Option<i32> {
        // SAFETY: the set is initialised, and nothing is asked about the signal.
        let signal = unsafe { libc::sigwaitinfo(&raw const self.0, null_mut()) };
        Some(signal).filter(|&signal| signal > 0)
    }
}
