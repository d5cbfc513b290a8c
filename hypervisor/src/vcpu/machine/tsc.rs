//! At which frequency a guest's time-stamp counter runs (x86_64): one rule, and one refusal, for
//! all backends that can run whole machines.
//!
//! A guest that asks for nothing has the host's. One that asks for nearly the host's has the host's
//! too, and is told so: KVM does not scale so little either (its `tsc_tolerance_ppm`). Any other
//! frequency needs a processor that scales the counter for its guests.

use crate::vcpu::BackendError;
use alloc::format;

/// How far from the host's frequency a guest is still content with it, in millionths.
pub const TOLERANCE_PPM: u64 = 250;

/// What a host's counter is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTsc {
    /// Its frequency in Hz.
    pub hz: u64,
    /// Whether the processor scales it for guests.
    pub scales: bool,
}

/// At which rate a guest's counter runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// The host's.
    Host,
    /// This many kHz, by scaling.
    Scaled(u32),
}

impl HostTsc {
    /// The rate for a guest that asks for `asked` kHz, or for none.
    ///
    /// # Errors
    /// If the processor would have to scale and cannot: the key, the host's frequency, what to do.
    pub fn rate(self, asked: Option<u32>) -> Result<Rate, BackendError> {
        match asked {
            None => Ok(Rate::Host),
            Some(khz) if self.is_near(khz) => Ok(Rate::Host),
            Some(khz) if self.scales => Ok(Rate::Scaled(khz)),
            Some(khz) => Err(self.refusal(khz, "this processor does not scale it for guests")),
        }
    }

    /// What is said where a guest cannot have `asked` kHz.
    pub fn refusal(self, asked: u32, why: &str) -> BackendError {
        let khz = self.hz / 1000;
        BackendError::new(format!(
            "`tsc_khz` of {asked} cannot be had: the host's TSC runs at {khz} kHz, and {why}: write \
             tsc_khz = {khz}, or leave the key out"
        ))
    }

    fn is_near(self, khz: u32) -> bool {
        let asked = u128::from(khz) * 1000;
        let host = u128::from(self.hz);
        asked.abs_diff(host) * 1_000_000 <= host * u128::from(TOLERANCE_PPM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: HostTsc = HostTsc { hz: 2_000_000_000, scales: false };
    const SCALING: HostTsc = HostTsc { scales: true, ..PLAIN };

    #[test]
    fn nearly_the_hosts_is_the_hosts() {
        for host in [PLAIN, SCALING] {
            for asked in [None, Some(2_000_000), Some(2_000_500), Some(1_999_500)] {
                assert_eq!(host.rate(asked), Ok(Rate::Host), "{asked:?}");
            }
        }
        for khz in [2_000_501, 1_999_499, 100_000, u32::MAX] {
            assert_eq!(SCALING.rate(Some(khz)), Ok(Rate::Scaled(khz)));
        }
    }

    #[test]
    fn what_would_need_scaling_is_refused_in_words() {
        let text = PLAIN.rate(Some(1_500_000)).unwrap_err().text;
        assert_eq!(
            text,
            "`tsc_khz` of 1500000 cannot be had: the host's TSC runs at 2000000 kHz, and this \
             processor does not scale it for guests: write tsc_khz = 2000000, or leave the key out"
        );
        assert!(HostTsc { hz: u64::MAX, scales: false }.rate(Some(u32::MAX)).is_err());
        assert!(HostTsc { hz: 0, scales: false }.rate(Some(1)).is_err());
    }
}
