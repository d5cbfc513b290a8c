//! Waiting: hypercall 3 of Solo5's hvt ABI. It returns when a network has a frame or time is up.

#![allow(unsafe_code)]

use crate::raw::{self, Poll, number};
use crate::{Net, clock};
use core::time::Duration;

/// Networks that have a frame to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready(u64);

impl Ready {
    /// Whether this network has a frame.
    pub fn contains(self, net: &Net) -> bool {
        self.0 & (1 << net.handle()) != 0
    }

    /// Whether time was up with no frame anywhere.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many networks have a frame.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

/// Waits for a frame, at most `timeout`, which is cut to 292 years.
pub fn wait(timeout: Duration) -> Ready {
    let limit = i64::MAX.unsigned_abs();
    let timeout_nsecs = u64::try_from(timeout.as_nanos()).unwrap_or(limit).min(limit);
    let mut poll = Poll { timeout_nsecs, ..Poll::default() };
    // SAFETY: the argument is what this hypercall reads and writes.
    unsafe { raw::hypercall::<{ number::POLL }, _>(&raw mut poll) };
    Ready(poll.ready_set)
}

/// Waits for a frame, at most until [`clock::monotonic`] reaches `deadline`.
pub fn wait_until(deadline: Duration) -> Ready {
    wait(deadline.saturating_sub(clock::monotonic()))
}

/// Lets at least this time pass, whatever the networks do.
///
/// With a frame waiting it spins: the ABI has no wait that ignores networks.
pub fn sleep(time: Duration) {
    let deadline = clock::monotonic() + time;
    while clock::monotonic() < deadline {
        wait_until(deadline);
    }
}
