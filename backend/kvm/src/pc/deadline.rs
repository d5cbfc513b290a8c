//! The end of a vCPU's run by time: a timer that kicks the thread (timer_create(2), with
//! `SIGEV_THREAD_ID`).
//!
//! A deadline that moves later leaves the timer as it is: it then ends a run for nothing, and the
//! next run sets it. So a mode may give a new deadline before each run at no cost.

#![allow(unsafe_code)]

use super::kick::kick_signal;
use hypervisor::vcpu::BackendError;
use std::ptr;

/// A vCPU's deadline.
#[derive(Default)]
pub(super) struct Deadline {
    wanted: Option<u64>,
    /// What the timer is set to, at the latest.
    armed: Option<u64>,
    timer: Option<Timer>,
}

impl Deadline {
    /// Wants runs to end by this time.
    pub(super) fn set(&mut self, monotonic_ns: Option<u64>) {
        self.wanted = monotonic_ns;
    }

    /// A kick has come, so the timer may have gone off.
    pub(super) fn kicked(&mut self) {
        self.armed = None;
    }

    /// The vCPU has come to another thread.
    pub(super) fn moved(&mut self) {
        (self.timer, self.armed) = (None, None);
    }

    /// Sets the timer where that is needed, for the thread that calls.
    pub(super) fn arm(&mut self) -> Result<(), BackendError> {
        let Some(wanted) = self.wanted else { return Ok(()) };
        if self.armed.is_some_and(|armed| armed <= wanted) {
            return Ok(());
        }
        let timer = match &mut self.timer {
            Some(timer) => timer,
            none => none.insert(Timer::new()?),
        };
        timer.set(wanted)?;
        self.armed = Some(wanted);
        Ok(())
    }
}

/// A timer that kicks the thread that made it.
struct Timer(i32);

impl Timer {
    fn new() -> Result<Self, BackendError> {
        // SAFETY: zeroed where it is not set; both structures are valid for the call.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = kick_signal();
            event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
            let mut timer = 0i32;
            let (clock, id) = (libc::CLOCK_MONOTONIC, &raw mut timer);
            match libc::syscall(libc::SYS_timer_create, clock, &raw mut event, id) {
                0 => Ok(Self(timer)),
                _ => Err(failed("timer_create")),
            }
        }
    }

    fn set(&mut self, monotonic_ns: u64) -> Result<(), BackendError> {
        // Zero would stop it.
        let ns = i64::try_from(monotonic_ns.max(1)).unwrap_or(i64::MAX);
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let at = libc::timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 };
        let time = libc::itimerspec { it_interval: zero, it_value: at };
        let nowhere: *mut libc::itimerspec = ptr::null_mut();
        // SAFETY: the time is valid for the call, and what was set before is not asked for.
        let done = unsafe {
            libc::syscall(
                libc::SYS_timer_settime,
                self.0,
                libc::TIMER_ABSTIME,
                &raw const time,
                nowhere,
            )
        };
        if done == 0 { Ok(()) } else { Err(failed("timer_settime")) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer is ours; no memory is involved.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}

fn failed(what: &str) -> BackendError {
    let error = std::io::Error::last_os_error();
    BackendError::new(format!("{what} for a vCPU's deadline failed: {error}"))
}
