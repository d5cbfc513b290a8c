//! The local APIC's timer: one-shot, periodic, TSC-deadline (Intel SDM vol. 3 §11.5.4).
//!
//! It counts nanoseconds: the APIC's clock runs at 1 GHz, which CPUID tells the guest.

/// A moment, as the vCPU that asks sees it.
pub trait Instant {
    /// The host's monotonic clock in nanoseconds.
    fn ns(&self) -> u64;

    /// The guest's TSC.
    fn cycles(&self) -> u64;

    /// The TSC's frequency in Hz.
    fn frequency(&self) -> u64;
}

/// Frequency of the APIC's clock in kHz.
pub const FREQUENCY_KHZ: u32 = 1_000_000;

/// The shortest period, in nanoseconds: a guest that asks for less only slows itself down.
pub const SHORTEST_PERIOD: u64 = 50_000;

/// How the timer runs: bits 17 and 18 of its entry in the local vector table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerMode {
    /// Once.
    OneShot,
    /// Again and again.
    Periodic,
    /// When the TSC reaches a value.
    Deadline,
    /// Not defined: it does not run.
    Reserved,
}

impl TimerMode {
    /// Of this entry of the local vector table.
    pub const fn of(lvt: u32) -> Self {
        match lvt >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::Deadline,
            _ => Self::Reserved,
        }
    }
}

/// The timer.
#[derive(Debug, Clone, Default)]
pub struct Timer {
    /// The initial count register.
    pub initial: u32,
    /// The divide configuration register.
    pub divide: u32,
    /// IA32_TSC_DEADLINE, 0 when it has passed.
    pub tsc_deadline: u64,
    /// When it ends next, in the host's nanoseconds.
    pub deadline: Option<u64>,
    /// The deadline had passed when it was set.
    pub passed: bool,
}

impl Timer {
    fn shift(&self) -> u32 {
        ((self.divide & 3 | self.divide >> 1 & 4) + 1) & 7
    }

    fn period(&self) -> u64 {
        u64::from(self.initial) << self.shift()
    }

    /// Stops it: its mode changes between counting and deadline, or it is reset.
    pub fn stop(&mut self) {
        self.initial = 0;
        self.tsc_deadline = 0;
        self.deadline = None;
    }

    /// Starts the count.
    pub fn start(&mut self, initial: u32, mode: TimerMode, now: &impl Instant) {
        self.initial = initial;
        let counts = matches!(mode, TimerMode::OneShot | TimerMode::Periodic);
        self.deadline = (initial != 0 && counts).then(|| now.ns().saturating_add(self.period()));
    }

    /// Changes the divider, from which on the rest of the count runs.
    pub fn set_divide(&mut self, divide: u32, now: &impl Instant) {
        let left = self.current(now);
        self.divide = divide;
        if self.deadline.is_some() && self.tsc_deadline == 0 {
            let rest = u64::from(left) << self.shift();
            self.deadline = Some(now.ns().saturating_add(rest));
        }
    }

    /// The current count register.
    pub fn current(&self, now: &impl Instant) -> u32 {
        let Some(deadline) = self.deadline.filter(|_| self.tsc_deadline == 0) else { return 0 };
        let left = deadline.saturating_sub(now.ns()) >> self.shift();
        u32::try_from(left).unwrap_or(u32::MAX).min(self.initial)
    }

    /// Sets IA32_TSC_DEADLINE; 0 disarms it.
    pub fn set_tsc_deadline(&mut self, value: u64, now: &impl Instant) {
        self.tsc_deadline = value;
        self.deadline = None;
        if value != 0 {
            // The counter is read first: what passes until the clock is makes the timer late, not
            // early.
            let cycles = value.saturating_sub(now.cycles());
            self.passed = cycles == 0;
            self.deadline = Some(now.ns().saturating_add(nanoseconds(cycles, now.frequency())));
        }
    }

    /// Whether it has ended by now; it is then set again where it is periodic.
    pub fn expire(&mut self, mode: TimerMode, now: u64) -> bool {
        let Some(deadline) = self.deadline.filter(|deadline| *deadline <= now) else {
            return false;
        };
        self.deadline = None;
        self.tsc_deadline = 0;
        self.passed = false;
        if mode == TimerMode::Periodic && self.initial != 0 {
            let period = self.period().max(SHORTEST_PERIOD);
            // Periods that nobody served are lost, as they are when interrupts are off.
            let missed = (now - deadline) / period;
            self.deadline = Some(deadline.saturating_add((missed + 1) * period));
        }
        true
    }
}

/// How long so many cycles take, rounded up.
fn nanoseconds(cycles: u64, frequency: u64) -> u64 {
    let scaled = u128::from(cycles) * 1_000_000_000;
    u64::try_from(scaled.div_ceil(u128::from(frequency.max(1)))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use proptest::prelude::*;

    struct At(u64);

    impl Instant for At {
        fn ns(&self) -> u64 {
            self.0
        }
        fn cycles(&self) -> u64 {
            self.0 * 2
        }
        fn frequency(&self) -> u64 {
            2_000_000_000
        }
    }

    #[test]
    fn dividers_are_those_of_the_manual() {
        let table = [2, 4, 8, 16, 32, 64, 128, 1];
        for (code, divider) in (0u32..).zip(table) {
            let divide = code & 3 | (code & 4) << 1;
            let timer = Timer { divide, ..Timer::default() };
            assert_eq!(1 << timer.shift(), divider);
        }
    }

    #[test]
    fn it_counts_down_once_or_again() {
        let mut timer = Timer { divide: 0b1011, ..Timer::default() };
        timer.start(1_000_000, TimerMode::OneShot, &At(5));
        assert_eq!(timer.current(&At(1_005)), 999_000);
        assert!(!timer.expire(TimerMode::OneShot, 1_000_004));
        assert!(timer.expire(TimerMode::OneShot, 1_000_005));
        assert_eq!((timer.deadline, timer.current(&At(2_000_000))), (None, 0));
        timer.start(1_000_000, TimerMode::Periodic, &At(0));
        assert!(timer.expire(TimerMode::Periodic, 1_000_700));
        assert_eq!(timer.deadline, Some(2_000_000));
        assert!(timer.expire(TimerMode::Periodic, 7_500_000));
        assert_eq!(timer.deadline, Some(8_000_000));
        timer.start(1, TimerMode::Periodic, &At(0));
        assert!(timer.expire(TimerMode::Periodic, 1));
        assert!(timer.deadline.unwrap() >= SHORTEST_PERIOD);
    }

    #[test]
    fn a_deadline_is_a_value_of_the_tsc() {
        let mut timer = Timer::default();
        timer.set_tsc_deadline(2_001, &At(500));
        assert_eq!((timer.deadline, timer.tsc_deadline), (Some(1_001), 2_001));
        assert!(timer.expire(TimerMode::Deadline, 1_001));
        assert_eq!((timer.deadline, timer.tsc_deadline), (None, 0));
        timer.set_tsc_deadline(1, &At(500));
        assert_eq!(timer.deadline, Some(500));
        timer.set_tsc_deadline(u64::MAX, &At(500));
        assert!(timer.deadline.is_some());
    }

    /// A guest's TSC as processors scale the host's, and the host's clock in whole nanoseconds. To
    /// read either takes a nanosecond at least.
    struct Scaled {
        host: Cell<u128>,
        host_hz: u64,
        hz: u64,
    }

    const NS: u128 = 1_000_000_000;

    impl Scaled {
        fn read(&self) -> u128 {
            let now = self.host.get();
            self.host.set(now + u128::from(self.host_hz).div_ceil(NS));
            now
        }

        fn cycles_at(&self, host: u128) -> u64 {
            let ratio = (u128::from(self.hz) << 32).div_ceil(self.host_hz.into());
            u64::try_from((host * ratio) >> 32).unwrap()
        }
    }

    impl Instant for Scaled {
        fn ns(&self) -> u64 {
            u64::try_from(self.read() * NS / u128::from(self.host_hz)).unwrap()
        }
        fn cycles(&self) -> u64 {
            self.cycles_at(self.read())
        }
        fn frequency(&self) -> u64 {
            self.hz
        }
    }

    proptest! {
        /// When the host's clock says that a deadline has come, the guest's TSC has come there.
        #[test]
        fn no_deadline_is_early(
            host in 0u64..1 << 48,
            host_hz in 100_000_000u64..10_000_000_000,
            khz in 100_000u64..=100_000_000,
            ahead in 1u64..1 << 48,
        ) {
            let now = Scaled { host: Cell::new(host.into()), host_hz, hz: khz * 1000 };
            let mut timer = Timer::default();
            let value = now.cycles_at(host.into()) + ahead;
            timer.set_tsc_deadline(value, &now);
            // The host's counter at that nanosecond's beginning.
            let end = u128::from(timer.deadline.unwrap()) * u128::from(host_hz);
            let reached = now.cycles_at(end.div_ceil(NS));
            prop_assert!(reached >= value, "{reached} {value}");
        }
    }
}
