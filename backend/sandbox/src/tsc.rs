//! How fast the CPU's time-stamp counter runs, without calibration pauses.
//!
//! The CPU's own word is taken where it gives one: CPUID leaf 15H (Intel SDM vol. 2, CPUID) and
//! the hypervisor leaf 40000010H. Otherwise the counter is compared with the host's clock between
//! two moments that pass anyway, the backend's start and the last call before the guest starts.
//! The result errs, by a few hundredths of a per mille, towards a clock that runs fast for the
//! guest, so that a guest never wakes up earlier than it asked to.

#![allow(unsafe_code)]

use core::arch::x86_64::{__cpuid, _rdtsc};
use rustix::time::{ClockId, clock_gettime};

/// Two samples nearer than this make too rough a measure.
const LEAST_NS: u64 = 100_000;

/// A moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The counter just before the clock was read.
    before: u64,
    /// The clock.
    ns: u64,
    /// The counter just after.
    after: u64,
}

impl Moment {
    /// The tightest of a few samples.
    pub fn now() -> Self {
        let samples = [(); 4].map(|()| Self::sample());
        samples.into_iter().min_by_key(|s| s.after.wrapping_sub(s.before)).unwrap_or(samples[0])
    }

    fn sample() -> Self {
        // SAFETY: every x86_64 CPU has RDTSC, and Linux lets user mode use it.
        let counter = || unsafe { _rdtsc() };
        let before = counter();
        let ns = clock_ns();
        Self { before, ns, after: counter() }
    }
}

fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::MonotonicRaw);
    now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.cast_unsigned())
}

/// Frequency of the counter in Hz; `start` lies as far back as possible.
pub fn frequency(start: &Moment) -> u64 {
    announced().unwrap_or_else(|| measured(start))
}

fn measured(start: &Moment) -> u64 {
    while clock_ns().wrapping_sub(start.ns) < LEAST_NS {
        core::hint::spin_loop();
    }
    let end = Moment::now();
    let ticks = u128::from(end.before.wrapping_sub(start.after));
    let ns = u128::from(end.ns.wrapping_sub(start.ns).max(1));
    u64::try_from(ticks * 1_000_000_000 / ns).unwrap_or(u64::MAX)
}

fn announced() -> Option<u64> {
    if __cpuid(0).eax >= 0x15 {
        let leaf = __cpuid(0x15);
        if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
            return Some(u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax));
        }
    }
    let hypervised = __cpuid(1).ecx >> 31 == 1;
    if hypervised && (0x4000_0010..0x4001_0000).contains(&__cpuid(0x4000_0000).eax) {
        let khz = __cpuid(0x4000_0010).eax;
        return (khz != 0).then_some(u64::from(khz) * 1000);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measure_and_announcement_agree_within_a_per_mille() {
        let start = Moment::now();
        let measured = measured(&start);
        assert!((100_000_000..20_000_000_000).contains(&measured), "{measured}");
        if let Some(announced) = announced() {
            assert!(measured.abs_diff(announced) < announced / 1000, "{measured} {announced}");
        }
    }
}
