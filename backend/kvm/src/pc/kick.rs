//! Making a vCPU leave its guest, by a signal to the thread that runs it.
//!
//! The handler notes the kick in the thread and, where that thread is in a run, sets the
//! `immediate_exit` byte of its vCPU (KVM API §5). So a kick that comes before `KVM_RUN` has begun
//! is not lost, wherever the thread was.

#![allow(unsafe_code)]

use hypervisor::vcpu::BackendError;
use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};

thread_local! {
    /// `immediate_exit` of the vCPU that this thread is running.
    static BYTE: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
    /// A kick has come that no run has ended by.
    static KICKED: Cell<bool> = const { Cell::new(false) };
}

/// The signal that kicks: a real-time signal, which nothing else in this process uses.
pub fn kick_signal() -> i32 {
    libc::SIGRTMIN() + 1
}

extern "C" fn note(_: libc::c_int) {
    KICKED.set(true);
    let byte = BYTE.get();
    if !byte.is_null() {
        // SAFETY: set only while the vCPU that it belongs to runs in this thread.
        unsafe { AtomicU8::from_ptr(byte) }.store(1, Ordering::Relaxed);
    }
}

/// Installs the handler, once for the process.
pub(super) fn install() -> Result<(), BackendError> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let install = || {
        // SAFETY: zeroed where it is not set; the handler touches only its thread's own cells,
        // which need no initialisation, so it may interrupt anything.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as *const () as usize;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(kick_signal(), &raw const action, ptr::null_mut()) == 0
        }
    };
    match DONE.get_or_init(install) {
        true => Ok(()),
        false => Err(BackendError::new("cannot install a handler for the signal that kicks vCPUs")),
    }
}

/// While it lives, a kick sets this thread's vCPU's byte.
pub(super) struct Running(());

impl Running {
    /// Begins a run of the vCPU with this byte, unless a kick is waiting, which is then served.
    ///
    /// The byte has to stay mapped until the value is dropped.
    pub(super) fn enter(byte: *mut u8) -> Option<Self> {
        BYTE.set(byte);
        let running = Self(());
        // From here on a kick is in the byte as well.
        (!KICKED.get()).then_some(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        BYTE.set(ptr::null_mut());
    }
}

/// A run ends by a kick: the next may begin. After the byte has been cleared.
pub(super) fn served() {
    KICKED.set(false);
}

/// A value that only this thread has, as long as it lives.
pub(super) fn this_thread() -> usize {
    KICKED.with(|cell| ptr::from_ref(cell).addr())
}

/// The thread that runs a vCPU, for those who want to kick it.
#[derive(Default)]
pub(super) struct Home {
    thread: AtomicI32,
    /// A kick that came when there was no thread yet.
    early: AtomicBool,
}

impl Home {
    /// This thread runs the vCPU now.
    pub(super) fn move_in(&self) {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        self.thread.store(tid, Ordering::SeqCst);
    }

    /// The vCPU is gone.
    pub(super) fn move_out(&self) {
        self.thread.store(0, Ordering::SeqCst);
    }

    /// Whether a kick came before there was a thread; once.
    pub(super) fn take_early(&self) -> bool {
        self.early.load(Ordering::SeqCst) && self.early.swap(false, Ordering::SeqCst)
    }

    /// Ends the run that is going on, or the next.
    pub(super) fn kick(&self) {
        // In this order: a thread that moves in after the look at `thread` sees `early`.
        self.early.store(true, Ordering::SeqCst);
        let thread = self.thread.load(Ordering::SeqCst);
        if thread == 0 {
            return;
        }
        let process = rustix::process::getpid().as_raw_nonzero().get();
        // SAFETY: a system call without memory. Should the thread have ended and its number be
        // another's, then that one notes a kick that does it no harm.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, kick_signal()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kick_is_kept_until_a_run_has_ended_by_it() {
        install().unwrap();
        let home = Home::default();
        home.kick();
        assert!(home.take_early(), "there was nobody to kick");
        home.move_in();
        let mut byte = 0;
        drop(Running::enter(&raw mut byte).expect("nothing has happened in this thread"));
        home.kick();
        assert!(Running::enter(&raw mut byte).is_none());
        assert_eq!(byte, 0, "it came outside of a run");
        served();
        let running = Running::enter(&raw mut byte).expect("it has been served");
        home.kick();
        // SAFETY: the byte is this test's own.
        assert_eq!(unsafe { (&raw const byte).read_volatile() }, 1);
        drop(running);
        served();
    }
}
