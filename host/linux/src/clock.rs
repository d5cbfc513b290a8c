//! The host's clocks, read through the vDSO.

use hypervisor::host::Clock;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// CLOCK_REALTIME and CLOCK_MONOTONIC.
pub struct HostClock(());

impl HostClock {
    /// Also finds the vDSO, so that later readings do not have to.
    pub fn new() -> Self {
        let _ = monotonic_ns();
        Self(())
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

fn ns(time: Timespec) -> u64 {
    time.tv_sec
        .cast_unsigned()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec.cast_unsigned())
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic_ns() -> u64 {
    ns(clock_gettime(ClockId::Monotonic))
}

impl Clock for HostClock {
    fn wall_ns(&self) -> u64 {
        ns(clock_gettime(ClockId::Realtime))
    }

    fn monotonic_ns(&self) -> u64 {
        monotonic_ns()
    }
}
