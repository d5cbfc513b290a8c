//! Signals to a tender: noted by a handler, acted on where the vCPU comes back.
//!
//! Two ways, for two kinds of tender:
//! - A supervisor that only waits [`block`]s its signals after [`install`], and lets them in while
//!   it waits (ppoll(2) with a mask).
//! - A tender that runs a vCPU in its own thread leaves them open: under some outer filters they
//!   cannot be blocked. So that none is lost between a look at the note and the next blocking
//!   call, the handler also makes that call return: it sets KVM's `immediate_exit`
//!   ([`kick_byte`]) and fires the timer in the guest's wait set ([`Epoll::interruptible`]).
//!
//! [`Epoll::interruptible`]: crate::wait::Epoll::interruptible

#![allow(unsafe_code)]

use crate::sys;
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, AtomicU32, Ordering};
use libc::c_int;
use rustix::fd::RawFd;

/// Bit `n` is set if signal `n` has come since the last [`take`].
static PENDING: AtomicU32 = AtomicU32::new(0);
/// What [`kick_byte`] was told.
static KICK: AtomicPtr<AtomicU8> = AtomicPtr::new(core::ptr::null_mut());
/// The timer of a wait set, or -1.
static TIMER: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note(signal: c_int) {
    PENDING.fetch_or(1 << (signal & 31), Ordering::Relaxed);
    let kick = KICK.load(Ordering::Acquire);
    if !kick.is_null() {
        // SAFETY: whoever called `kick_byte` promised that it stays mapped.
        unsafe { (*kick).store(1, Ordering::Relaxed) };
    }
    let timer = TIMER.load(Ordering::Relaxed);
    if timer >= 0 {
        sys::fire_timer(timer);
    }
}

/// Installs the handler for these signals, without restarting interrupted calls.
pub fn install(signals: &[c_int]) {
    for &signal in signals {
        // SAFETY: the structure is zeroed where it is not set; the handler only touches atomics
        // and makes one system call of its own, so it may interrupt anything.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = note as *const () as usize;
            libc::sigfillset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, core::ptr::null_mut());
        }
    }
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

/// Makes the handler set this byte to 1, and does so at once if a signal has come already. Meant
/// for `immediate_exit` of KVM's `kvm_run` page (KVM API §5): the next `KVM_RUN` then returns
/// EINTR, after which the vCPU's owner sets the byte back to 0.
///
/// # Safety
/// The byte must stay mapped as long as the process lives, and may be written at any moment.
pub unsafe fn kick_byte(byte: *mut u8) {
    KICK.store(byte.cast(), Ordering::Release);
    if pending() && !byte.is_null() {
        // SAFETY: the caller's promise.
        unsafe { AtomicU8::from_ptr(byte) }.store(1, Ordering::Relaxed);
    }
}

/// Makes the handler fire this timer.
pub(crate) fn fire(timer: RawFd) {
    TIMER.store(timer, Ordering::Relaxed);
}

/// Whether a signal has come that nobody has taken yet.
pub fn pending() -> bool {
    PENDING.load(Ordering::Relaxed) != 0
}

/// Whether one has come besides this one.
pub(crate) fn pending_besides(signal: c_int) -> bool {
    PENDING.load(Ordering::Relaxed) & !(1 << (signal & 31)) != 0
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
