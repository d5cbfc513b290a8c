//! What a parent hands down and a program must not depend on.
//!
//! Ignored signals, the set of blocked ones, limits, the environment and descriptors survive
//! execve(2). Most of it is the parent's to decide (limits, priority, umask, PDEATHSIG, timers).
//! What is set here would make a program fail in ways that nobody understands:
//!
//! - SIGCHLD ignored: the kernel forgets a child's status, and every wait for one fails (wait(2)).
//! - Blocked signals: one that ends the program, kicks a vCPU or reports a fault never comes.
//! - SIGPIPE and SIGXFSZ, which end a process by default: a reader that is gone and a file at its
//!   limit (`ulimit -f`) are errors to be told, not deaths halfway through a file.
//!
//! SIGHUP and SIGQUIT that are ignored stay so ([`is_ignored`]): that is how nohup(1) and a shell's
//! `&` are meant. Order: [`note`] first of all, where something else changes SIGPIPE before `main`,
//! as Rust's runtime does; then [`settle`], before the first thread or child.

#![allow(unsafe_code)]

use core::ptr::null;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
use libc::c_int;

/// What SIGPIPE was: not looked at, not ignored, ignored.
static PIPE: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const DEFAULT: u8 = 1;
const IGNORED: u8 = 2;

/// Remembers whether SIGPIPE is ignored, the first time that it is called.
pub extern "C" fn note() {
    let now = if is_ignored(libc::SIGPIPE) { IGNORED } else { DEFAULT };
    let _ = PIPE.compare_exchange(UNKNOWN, now, Relaxed, Relaxed);
}

/// Whether the parent had SIGPIPE ignored: it wants no program to end because nobody reads.
pub fn pipe_was_ignored() -> bool {
    PIPE.load(Relaxed) == IGNORED
}

/// Whether this signal is ignored now.
pub fn is_ignored(signal: c_int) -> bool {
    // SAFETY: the structure is zeroed and filled by the call, which changes nothing.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        libc::sigaction(signal, null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Sets what this program needs, whatever its parent had. Where an outer filter forbids a step,
/// that is as it was.
pub fn settle() {
    note();
    // SAFETY: dispositions involve no memory, and the set is initialised before it is used.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, core::ptr::null_mut());
    }
}
