//! A guest's time-stamp counter: the host's, scaled, plus an offset.
//!
//! The ratio is in the form of AMD's TSC Ratio register (AMD APM vol. 2 §15.30.5): 8 bits before
//! the binary point, 32 after it. It is rounded up, so that a guest's counter is never behind its
//! nominal frequency: a deadline that was turned into the host's time by that frequency has come
//! for the guest, too, when it has come for the host. What a guest's clock gains by it is less than
//! `1 / (ratio << 32)`: with the smallest ratio that anybody asks for, a microsecond in a minute.

use hypervisor::vcpu::BackendError;
use hypervisor::vcpu::machine::tsc::{HostTsc, Rate};

/// Guest cycles to a host cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ratio(u64);

impl Ratio {
    const FRACTION: u32 = 32;
    /// The register has 40 bits.
    const MOST: u64 = (1 << 40) - 1;
    /// The host's counter.
    pub const ONE: Self = Self(1 << Self::FRACTION);

    /// Guest's frequency to host's, rounded up; `None` where the register does not hold it.
    fn of(guest: u64, host: u64) -> Option<Self> {
        let scaled = u128::from(guest) << Self::FRACTION;
        let ratio = scaled.checked_add(u128::from(host).checked_sub(1)?)? / u128::from(host);
        u64::try_from(ratio).ok().filter(|ratio| (1..=Self::MOST).contains(ratio)).map(Self)
    }

    /// As the register has it.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Guest cycles in so many of the host's, modulo 2 to the 64, as the processor computes them.
    #[allow(clippy::cast_possible_truncation)]
    #[inline]
    pub fn scale(self, host: u64) -> u64 {
        // Of 64 and 40 bits: the product has room.
        ((u128::from(host) * u128::from(self.0)) >> Self::FRACTION) as u64
    }
}

/// How fast a guest's counter runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Speed {
    pub ratio: Ratio,
    /// In Hz.
    pub hz: u64,
}

impl Speed {
    /// For a guest that asks for so many kHz, or for none.
    ///
    /// # Errors
    /// If the processor cannot scale so.
    pub fn new(host: HostTsc, asked: Option<u32>) -> Result<Self, BackendError> {
        match host.rate(asked)? {
            Rate::Host => Ok(Self { ratio: Ratio::ONE, hz: host.hz }),
            Rate::Scaled(khz) => {
                let hz = u64::from(khz) * 1000;
                let refused = || host.refusal(khz, "processors scale it less than 256-fold");
                Ok(Self { ratio: Ratio::of(hz, host.hz).ok_or_else(refused)?, hz })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOST: HostTsc = HostTsc { hz: 2_000_000_000, scales: true };

    #[test]
    fn ratios_have_32_bits_after_the_point() {
        let speed = |asked| Speed::new(HOST, asked).map(|speed| (speed.ratio.bits(), speed.hz));
        let unscaled = Ok((1 << 32, 2_000_000_000));
        assert_eq!(
            [None, Some(2_000_000), Some(2_000_499)].map(speed),
            [unscaled.clone(), unscaled.clone(), unscaled]
        );
        assert_eq!(speed(Some(3_000_000)), Ok((0x1_8000_0000, 3_000_000_000)));
        assert_eq!(speed(Some(500_000)), Ok((0x4000_0000, 500_000_000)));
        assert_eq!(Ratio::of(1, 3), Some(Ratio(0x5555_5556)), "rounded up");
        let slow = HostTsc { hz: 100_000_000, ..HOST };
        let text = Speed::new(slow, Some(100_000_000)).unwrap_err().text;
        assert!(text.starts_with("`tsc_khz` of 100000000 cannot be had: the host's TSC runs at"));
        assert!(text.contains("100000 kHz, and processors scale it less than 256-fold"), "{text}");
        assert!(Speed::new(HostTsc { scales: false, ..HOST }, Some(3_000_000)).is_err());
    }

    #[test]
    fn nothing_overflows() {
        assert_eq!((Ratio::of(0, 1), Ratio::of(1, 0)), (None, None));
        assert_eq!(Ratio::of(u64::MAX, 1), None);
        assert_eq!(Ratio::of(u64::MAX, u64::MAX), Some(Ratio::ONE));
        assert_eq!(Ratio::ONE.scale(u64::MAX), u64::MAX);
        let exact = (u128::from(u64::MAX) * u128::from(Ratio::MOST)) >> 32;
        let wrapped = u64::try_from(exact % (1 << 64));
        assert_eq!(Ok(Ratio(Ratio::MOST).scale(u64::MAX)), wrapped);
    }

    /// The exact product, low and high half, by schoolbook in digits of 32 bits: without the
    /// arithmetic that is tested.
    fn times(a: u64, b: u64) -> [u64; 2] {
        let digits = |n: u64| [n & 0xffff_ffff, n >> 32];
        let mut sum = [0u64; 4];
        for (i, a) in digits(a).into_iter().enumerate() {
            for (j, b) in digits(b).into_iter().enumerate() {
                let (mut carry, mut at) = (a * b, i + j);
                while carry != 0 {
                    let [low, high] = digits(sum[at] + (carry & 0xffff_ffff));
                    sum[at] = low;
                    (carry, at) = ((carry >> 32) + high, at + 1);
                }
            }
        }
        [sum[0] | sum[1] << 32, sum[2] | sum[3] << 32]
    }

    proptest! {
        /// `ratio - 1 < guest * 2^32 / host <= ratio`, as whole numbers.
        #[test]
        fn a_ratio_is_the_next_above_the_exact_one(guest in 1u64.., host in 1u64..) {
            if let Some(Ratio(ratio)) = Ratio::of(guest, host) {
                let exact = u128::from(guest) << 32;
                prop_assert!(exact <= u128::from(ratio) * u128::from(host));
                prop_assert!(u128::from(ratio - 1) * u128::from(host) < exact);
            } else {
                prop_assert!(u128::from(guest) << 32 > u128::from(Ratio::MOST) * u128::from(host));
            }
        }

        /// The scaled counter is bits 32 to 95 of the exact product.
        #[test]
        fn a_counter_is_scaled_exactly(host: u64, ratio in 1..=Ratio::MOST) {
            let [low, high] = times(host, ratio);
            prop_assert_eq!(Ratio(ratio).scale(host), low >> 32 | high << 32);
        }

        /// Whatever the frequencies and the moment: a TSC deadline that is told to the host in
        /// nanoseconds, as the core does it, has come for the guest when the host's time is there.
        #[test]
        fn no_deadline_is_early(
            host_hz in 100_000_000u64..10_000_000_000,
            khz in 100_000u32..100_000_000,
            start in 0u64..1 << 60,
            ahead in 1u64..1 << 50,
        ) {
            let guest_hz = u64::from(khz) * 1000;
            let Some(ratio) = Ratio::of(guest_hz, host_hz) else { return Ok(()) };
            let deadline = ratio.scale(start) + ahead;
            let ns = (u128::from(ahead) * 1_000_000_000).div_ceil(u128::from(guest_hz));
            // The host's counter after so many nanoseconds, at the earliest.
            let passed = (ns * u128::from(host_hz)).div_ceil(1_000_000_000);
            prop_assert!(ratio.scale(start + u64::try_from(passed).unwrap()) >= deadline);
            // And not much late: a nanosecond, a host's cycle, and the ratio's own error.
            let late = ratio.scale(start + u64::try_from(passed).unwrap()) - deadline;
            let cycle = guest_hz / 1_000_000_000 + guest_hz / host_hz + 4;
            prop_assert!(u128::from(late) <= u128::from(cycle) + (passed >> 32), "{late}");
        }
    }
}
