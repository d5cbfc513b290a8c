//! Two clocks: a monotonic one from the cycle counter, and the host's wall clock (hypercall 1).

#![allow(unsafe_code)]

use crate::raw::{self, Walltime, number};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

/// Nanoseconds per cycle, times 2^32; [`init`] sets it.
static SCALE: AtomicU64 = AtomicU64::new(0);

/// Sets the cycle counter's frequency in Hz.
pub(crate) fn init(frequency: u64) {
    SCALE.store(scale(frequency), Ordering::Relaxed);
}

/// 0 Hz, from a tender that does not know, counts as 1 GHz.
#[allow(clippy::cast_possible_truncation, reason = "10^9 times 2^32 fits 64 bits")]
fn scale(frequency: u64) -> u64 {
    let frequency = if frequency == 0 { 1_000_000_000 } else { frequency };
    ((1_000_000_000u128 << 32) / u128::from(frequency)) as u64
}

#[allow(clippy::cast_possible_truncation, reason = "584 years of nanoseconds")]
fn nanoseconds(cycles: u64, scale: u64) -> u64 {
    ((u128::from(cycles) * u128::from(scale)) >> 32) as u64
}

/// Time since some moment before the start; never goes back.
pub fn monotonic() -> Duration {
    // SAFETY: every x86_64 CPU has the instruction, and the tender leaves it enabled.
    let cycles = unsafe { core::arch::x86_64::_rdtsc() };
    Duration::from_nanos(nanoseconds(cycles, SCALE.load(Ordering::Relaxed)))
}

/// Time since 1970-01-01 00:00 UTC.
pub fn wall() -> Duration {
    let mut time = Walltime::default();
    // SAFETY: the argument is what this hypercall writes.
    unsafe { raw::hypercall::<{ number::WALLTIME }, _>(&raw mut time) };
    Duration::from_nanos(time.nsecs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_cycles_is_a_second() {
        for frequency in [1_000_000, 999_999_937, 2_893_202_000, 5_000_000_000] {
            let ns = nanoseconds(frequency, scale(frequency));
            assert!(ns.abs_diff(1_000_000_000) <= 2, "{frequency} Hz: {ns}");
        }
        assert_eq!(nanoseconds(7, scale(0)), 7);
        assert!(nanoseconds(u64::MAX, scale(4_000_000_000)) > u64::MAX / 5);
    }
}
