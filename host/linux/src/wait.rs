//! Waits for networks and time: epoll(7), with nanoseconds where the kernel has them.

use crate::confine::Rule;
use crate::sys;
use core::sync::atomic::{AtomicBool, Ordering};
use hypervisor::host::{HostError, WaitSet};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use std::sync::Arc;

/// The timer's mark in the epoll set; handles are below 64.
const TIMER: u64 = u64::MAX;
/// Room for all handles of a guest, and the timer.
const NO_EVENTS: [Event; 65] =
    [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 65];

/// Says whether a port has a frame that the kernel does not know of.
pub trait Buffered: Send + Sync {
    /// Whether the next reception will find a frame.
    fn has_frame(&self) -> bool;
}

/// An epoll set over a guest's networks.
pub struct Epoll {
    set: OwnedFd,
    timer: OwnedFd,
    buffered: Vec<(u32, Arc<dyn Buffered>)>,
    /// Whether epoll_pwait2(2) (Linux 5.11) is missing or refused.
    coarse: AtomicBool,
}

impl Epoll {
    /// A set over these networks, by handle.
    ///
    /// # Errors
    /// The system's, or `INVAL` for a handle that is too large.
    pub fn new(
        nets: &[(u32, BorrowedFd<'_>)],
        buffered: Vec<(u32, Arc<dyn Buffered>)>,
    ) -> Result<Self, Errno> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&set, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        for (handle, fd) in nets {
            if *handle >= u64::BITS {
                return Err(Errno::INVAL);
            }
            epoll::add(&set, fd, EventData::new_u64(u64::from(*handle)), EventFlags::IN)?;
        }
        Ok(Self { set, timer, buffered, coarse: AtomicBool::new(false) })
    }

    /// Its descriptors.
    pub fn fds(&self) -> [RawFd; 2] {
        [self.set.as_raw_fd(), self.timer.as_raw_fd()]
    }

    /// The system calls that serving it takes.
    pub fn rules(&self) -> Vec<Rule> {
        let set = self.set.as_raw_fd();
        vec![
            Rule::on_fd(libc::SYS_epoll_pwait2, set, "poll, with a timeout in nanoseconds"),
            Rule::on_fd(libc::SYS_epoll_pwait, set, "poll, with a timer"),
            Rule::on_fd(
                libc::SYS_timerfd_settime,
                self.timer.as_raw_fd(),
                "a timeout where the kernel has no nanoseconds in epoll",
            ),
        ]
    }

    fn buffered_set(&self) -> u64 {
        let ready = self.buffered.iter().filter(|(_, port)| port.has_frame());
        ready.fold(0, |set, (handle, _)| set | 1 << handle)
    }

    /// One wait; the set of ready handles, empty after the timeout.
    fn once(&self, timeout_ns: u64) -> Result<u64, Errno> {
        if self.coarse.load(Ordering::Relaxed) {
            return self.once_coarse(timeout_ns);
        }
        let mut events = NO_EVENTS;
        match sys::epoll_pwait2(self.set.as_fd(), &mut events, &timespec(timeout_ns)) {
            Ok(count) => Ok(handles(&events[..count])),
            Err(Errno::NOSYS | Errno::PERM) => {
                self.coarse.store(true, Ordering::Relaxed);
                self.once_coarse(timeout_ns)
            }
            Err(e) => Err(e),
        }
    }

    /// With the timer in the set instead of a timeout.
    fn once_coarse(&self, timeout_ns: u64) -> Result<u64, Errno> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A timer of zero would be disarmed.
        let it_value = timespec(timeout_ns.max(1));
        let new = Itimerspec { it_interval: zero, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &new)?;
        let mut events = NO_EVENTS;
        let count = sys::epoll_pwait(self.set.as_fd(), &mut events)?;
        Ok(handles(&events[..count]))
    }
}

fn handles(events: &[Event]) -> u64 {
    // The structure is packed: its fields can be copied, not borrowed.
    let handles = events.iter().map(|&Event { data, .. }| data.u64()).filter(|&h| h < 64);
    handles.fold(0, |set, handle| set | 1 << handle)
}

fn timespec(ns: u64) -> Timespec {
    // At most 2^64 / 10^9, so both fit.
    Timespec {
        tv_sec: (ns / 1_000_000_000).cast_signed(),
        tv_nsec: (ns % 1_000_000_000).cast_signed(),
    }
}

impl WaitSet for Epoll {
    fn wait(&self, timeout_ns: u64) -> Result<u64, HostError> {
        let buffered = self.buffered_set();
        let timeout_ns = if buffered != 0 { 0 } else { timeout_ns };
        let deadline = crate::clock::monotonic_ns().saturating_add(timeout_ns);
        let mut left = timeout_ns;
        loop {
            match self.once(left) {
                Ok(ready) => return Ok(ready | buffered),
                Err(Errno::INTR) => {
                    left = deadline.saturating_sub(crate::clock::monotonic_ns());
                }
                Err(e) => return Err(HostError::from_errno(e.raw_os_error(), "poll")),
            }
        }
    }
}
