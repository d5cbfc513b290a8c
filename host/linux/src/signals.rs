//! Signals to a tender: noted by a handler, acted on where the vCPU comes back.
//!
//! They stay blocked except where the tender waits, so that none is lost between a look at the
//! note and the wait.

#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering};
use libc::c_int;

/// Bit `n` is set if signal `n` has come since the last [`take`].
static PENDING: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(signal: c_int) {
    PENDING.fetch_or(1 << (signal & 31), Ordering::Relaxed);
}

/// Installs the handler for these signals, without restarting interrupted calls, and ignores
/// SIGPIPE: a console that is gone is an error to be told.
pub fn install(signals: &[c_int]) {
    for &signal in signals {
        // SAFETY: the structure is zeroed where it is not set; the handler only sets an atomic.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = note as *const () as usize;
            libc::sigfillset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, core::ptr::null_mut());
        }
    }
    // SAFETY: ignoring a signal involves no memory.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Blocks these signals. Where an outer filter forbids it, they stay open: one that comes just
/// before a wait is then noticed after it.
pub fn block(signals: &[c_int]) {
    // SAFETY: the set is initialised before it is used.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, core::ptr::null_mut());
    }
}

/// The lowest-numbered signal that has come, once.
pub fn take() -> Option<c_int> {
    let pending = PENDING.load(Ordering::Relaxed);
    if pending == 0 {
        return None;
    }
    let signal = pending.trailing_zeros();
    PENDING.fetch_and(!(1 << signal), Ordering::Relaxed);
    c_int::try_from(signal).ok()
}
