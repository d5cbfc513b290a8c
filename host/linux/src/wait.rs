//! Waits for networks and time: epoll(7), with nanoseconds where the kernel has them.
//!
//! A timer is always in the set. It is the timeout where epoll_pwait2(2) is missing, and what a
//! signal handler fires so that a signal just before the wait is not lost.

use crate::confine::Rule;
use crate::{signals, sys};
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
const ZERO: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What the kernel does not know about a port with buffers of its own.
pub trait Buffered: Send + Sync {
    /// Whether the next reception will find a frame.
    fn has_frame(&self) -> bool;

    /// Sends what could not be sent yet, as far as the kernel takes it. `true` if some is left,
    /// so that the port has to be called again when it is writable.
    fn has_unsent(&self) -> bool;

    /// Gives it what to call when a reception has left a frame of which the kernel does not know.
    fn nudge_with(&self, nudge: Arc<Nudge>);
}

/// Wakes a wait in another thread.
pub struct Nudge {
    timer: RawFd,
    waiting: AtomicBool,
}

impl Nudge {
    /// Wakes who waits, if somebody does. Called under the lock that [`Buffered::has_frame`]
    /// takes: either that sees the frame, or this sees the wait.
    pub fn nudge(&self) {
        if self.waiting.load(Ordering::Relaxed) {
            sys::fire_timer(self.timer);
        }
    }
}

/// Says what a signal means to a wait.
pub trait OnSignal: Send + Sync {
    /// Called when a signal has come during a wait, in the waiting thread and not in the handler.
    /// `true` ends the wait; it is called again as long as [`signals::pending`].
    fn ends_wait(&self) -> bool;
}

/// A port with buffers of its own.
struct Port {
    handle: u32,
    fd: RawFd,
    port: Arc<dyn Buffered>,
    /// Whether the set asks for room to write.
    asks: AtomicBool,
}

/// An epoll set over a guest's networks.
pub struct Epoll {
    set: OwnedFd,
    timer: OwnedFd,
    buffered: Vec<Port>,
    on_signal: Option<Arc<dyn OnSignal>>,
    nudge: Arc<Nudge>,
    /// Whether epoll_pwait2(2) (Linux 5.11) is missing or refused.
    coarse: AtomicBool,
}

/// What one look at the set has found.
struct Found {
    /// Handles with something to receive.
    ready: u64,
    /// Whether the timer has fired.
    timer: bool,
}

impl Epoll {
    /// A set over these networks, by handle. Those of `buffered` are also in `nets`.
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
        let find = |handle| nets.iter().find(|net| net.0 == handle).map(|net| net.1.as_raw_fd());
        let nudge = Arc::new(Nudge { timer: timer.as_raw_fd(), waiting: AtomicBool::new(false) });
        let buffered = buffered.into_iter().map(|(handle, port)| {
            port.nudge_with(Arc::clone(&nudge));
            let fd = find(handle).ok_or(Errno::INVAL)?;
            Ok(Port { handle, fd, port, asks: AtomicBool::new(false) })
        });
        let buffered = buffered.collect::<Result<_, Errno>>()?;
        let coarse = AtomicBool::new(false);
        Ok(Self { set, timer, buffered, on_signal: None, nudge, coarse })
    }

    /// The same, for a process in which [`signals::install`]'s handler runs: asks `on_signal`
    /// whenever a signal comes, even just before the wait. A wait that it ends returns what is
    /// ready by then. Only one set of a process can be so.
    #[must_use]
    pub fn interruptible(self, on_signal: Arc<dyn OnSignal>) -> Self {
        signals::fire(self.timer.as_raw_fd());
        Self { on_signal: Some(on_signal), ..self }
    }

    /// Its descriptors.
    pub fn fds(&self) -> [RawFd; 2] {
        [self.set.as_raw_fd(), self.timer.as_raw_fd()]
    }

    /// The system calls that serving it takes.
    pub fn rules(&self) -> Vec<Rule> {
        const MODIFY: u64 = 3;
        let set = self.set.as_raw_fd();
        let timer = self.timer.as_raw_fd();
        let mut rules = vec![
            Rule::on_fd(libc::SYS_epoll_pwait2, set, "poll, with a timeout in nanoseconds"),
            Rule::on_fd(libc::SYS_epoll_pwait, set, "poll, without a timeout or with a timer"),
            Rule::on_fd(libc::SYS_timerfd_settime, timer, "poll's timer, or a signal's"),
        ];
        if !self.buffered.is_empty() {
            let why = "ask for room in a stream of frames";
            rules.push(Rule::on_fd(libc::SYS_epoll_ctl, set, why).and(1, MODIFY));
        }
        rules
    }

    /// The ports that have a frame the kernel does not know of. Sends what is left to be sent,
    /// and asks for a word when there is room for the rest.
    fn buffered_set(&self) -> Result<u64, Errno> {
        let mut ready = 0;
        for port in &self.buffered {
            let unsent = port.port.has_unsent();
            if unsent != port.asks.load(Ordering::Relaxed) {
                self.ask(port, unsent)?;
            }
            if port.port.has_frame() {
                ready |= 1 << port.handle;
            }
        }
        Ok(ready)
    }

    fn ask(&self, port: &Port, unsent: bool) -> Result<(), Errno> {
        let flags = if unsent { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        sys::epoll_modify(self.set.as_fd(), port.fd, u64::from(port.handle), flags)?;
        port.asks.store(unsent, Ordering::Relaxed);
        Ok(())
    }

    /// Just looks.
    fn look(&self) -> Result<Found, Errno> {
        let mut events = NO_EVENTS;
        let count = sys::epoll_pwait(self.set.as_fd(), &mut events, false)?;
        Ok(found(&events[..count]))
    }

    /// One wait, which a signal may cut short.
    fn once(&self, timeout_ns: u64) -> Result<Found, Errno> {
        if self.coarse.load(Ordering::Relaxed) {
            return self.once_coarse(timeout_ns);
        }
        let mut events = NO_EVENTS;
        match sys::epoll_pwait2(self.set.as_fd(), &mut events, &timespec(timeout_ns)) {
            Ok(count) => Ok(found(&events[..count])),
            Err(Errno::NOSYS | Errno::PERM) => {
                self.coarse.store(true, Ordering::Relaxed);
                self.once_coarse(timeout_ns)
            }
            Err(e) => Err(e),
        }
    }

    /// With the timer in the set instead of a timeout.
    fn once_coarse(&self, timeout_ns: u64) -> Result<Found, Errno> {
        // A timer of zero would be disarmed.
        self.set_timer(timespec(timeout_ns.max(1)))?;
        // A handler or a nudge before this moment has set the timer for nothing.
        if self.interrupted() || self.has_buffered() {
            return Err(Errno::INTR);
        }
        let mut events = NO_EVENTS;
        let count = sys::epoll_pwait(self.set.as_fd(), &mut events, true)?;
        Ok(found(&events[..count]))
    }

    fn set_timer(&self, it_value: Timespec) -> Result<(), Errno> {
        let new = Itimerspec { it_interval: ZERO, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &new).map(drop)
    }

    fn has_buffered(&self) -> bool {
        self.buffered.iter().any(|port| port.port.has_frame())
    }

    fn interrupted(&self) -> bool {
        self.on_signal.is_some() && signals::pending()
    }

    /// Whether a signal ends this wait.
    fn ends(&self) -> bool {
        signals::pending() && self.on_signal.as_ref().is_some_and(|ask| ask.ends_wait())
    }

    fn wait_until(&self, deadline: u64) -> Result<u64, Errno> {
        loop {
            let buffered = self.buffered_set()?;
            let now = crate::clock::monotonic_ns();
            let (buffered, left) = match deadline.checked_sub(now) {
                Some(left) if buffered == 0 && left > 0 => (0, left),
                _ => return Ok(self.look()?.ready | buffered),
            };
            match self.once(left) {
                Ok(Found { ready, .. }) if ready != 0 => return Ok(ready | buffered),
                Ok(Found { timer: true, .. }) => self.set_timer(ZERO)?,
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
            if self.ends() {
                return Ok(self.look()?.ready);
            }
        }
    }
}

fn found(events: &[Event]) -> Found {
    let mut found = Found { ready: 0, timer: false };
    // The structure is packed: its fields can be copied, not borrowed.
    for &Event { flags, data } in events {
        match data.u64() {
            TIMER => found.timer = true,
            // Room to write is not something to receive.
            _ if flags == EventFlags::OUT => {}
            handle @ 0..64 => found.ready |= 1 << handle,
            _ => {}
        }
    }
    found
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
        let result = if timeout_ns == 0 {
            self.buffered_set().and_then(|buffered| Ok(self.look()?.ready | buffered))
        } else {
            self.nudge.waiting.store(true, Ordering::Relaxed);
            let result = self.wait_until(crate::clock::monotonic_ns().saturating_add(timeout_ns));
            self.nudge.waiting.store(false, Ordering::Relaxed);
            result
        };
        result.map_err(|e| HostError::from_errno(e.raw_os_error(), "poll"))
    }
}

#[cfg(test)]
mod tests;
