//! Each mode by the data sheet's figures, a model that counts tick by tick, and anything at all.

use super::*;
use crate::device::{InterruptSink, Lines, MsiMessage, Trigger, Width};
use crate::modes::type1::board::Timers;
use crate::modes::type1::fixture::{BEGIN, JumpingClock, clock};
use proptest::prelude::*;

struct Nowhere;

impl InterruptSink for Nowhere {
    fn set_line(&self, _: u32, _: bool) {}
    fn pulse(&self, _: u32) {}
    fn msi(&self, _: MsiMessage) {}
}

struct Bench {
    pit: Pit,
    clock: Arc<JumpingClock>,
}

fn bench() -> Bench {
    let clock = clock();
    let irq = Lines::new(Arc::new(Nowhere)).source(0, Trigger::Edge);
    Bench { pit: Pit::new(clock.clone(), Timers::new().slot(), irq), clock }
}

impl Bench {
    fn write(&mut self, port: u64, value: u8) {
        let access = Access { offset: port, width: Width::Byte };
        self.pit.write(access, value.into(), &mut Effects::new());
    }

    fn read(&mut self, port: u64) -> u8 {
        let access = Access { offset: port, width: Width::Byte };
        self.pit.read(access, &mut Effects::new()).to_le_bytes()[0]
    }

    /// Goes to this tick since the beginning.
    fn tick(&self, tick: u64) {
        self.clock.to(BEGIN + nanoseconds(tick, FREQUENCY));
    }

    fn load(&mut self, channel: u8, mode: u8, count: u16) {
        self.write(3, channel << 6 | 0x30 | mode << 1);
        let [low, high] = count.to_le_bytes();
        self.write(channel.into(), low);
        self.write(channel.into(), high);
    }

    fn count(&mut self, channel: u8) -> u16 {
        self.write(3, channel << 6);
        let (low, high) = (self.read(channel.into()), self.read(channel.into()));
        u16::from_le_bytes([low, high])
    }

    fn output(&mut self, channel: u8) -> bool {
        self.write(3, 0xe0 | 2 << channel);
        self.read(channel.into()) & 0x80 != 0
    }
}

/// Output and count after each tick, as the data sheet's figures have them.
#[test]
fn modes_follow_their_figures() {
    let counts = |mode, count, ticks| {
        let mut bench = bench();
        bench.load(0, mode, count);
        let values = (0..ticks).map(|tick| {
            bench.tick(tick);
            (bench.count(0), bench.output(0))
        });
        values.collect::<alloc::vec::Vec<_>>()
    };
    assert_eq!(
        counts(0, 3, 6),
        [(3, false), (2, false), (1, false), (0, true), (0xffff, true), (0xfffe, true)]
    );
    assert_eq!(
        counts(2, 3, 7),
        [(3, true), (2, true), (1, false), (3, true), (2, true), (1, false), (3, true)]
    );
    assert_eq!(
        counts(3, 4, 6),
        [(4, true), (2, true), (4, false), (2, false), (4, true), (2, true)]
    );
    assert_eq!(counts(4, 2, 5), [(2, true), (1, true), (0, false), (0xffff, true), (0xfffe, true)]);
}

#[test]
fn the_square_wave_of_an_odd_count_is_longer_high() {
    let mut bench = bench();
    bench.load(0, 3, 5);
    let high = |bench: &mut Bench, tick| {
        bench.tick(tick);
        bench.output(0)
    };
    let wave: alloc::vec::Vec<_> = (0..10).map(|tick| high(&mut bench, tick)).collect();
    assert_eq!(wave, [true, true, true, false, false, true, true, true, false, false]);
}

#[test]
fn edges_come_from_when_the_count_was_loaded() {
    let mut bench = bench();
    bench.load(0, 2, 11_932);
    let period = |n: u64| BEGIN + nanoseconds(n * 11_932, FREQUENCY);
    for n in 1..50 {
        assert_eq!(bench.pit.slot.get(), Some(period(n)));
        // Late by something less than a period.
        bench.clock.to(period(n) + 3_000_000);
        bench.pit.expire(period(n) + 3_000_000, &mut Effects::new());
    }
    bench.clock.to(period(100));
    bench.pit.expire(period(100), &mut Effects::new());
    assert_eq!((bench.pit.edge, bench.pit.owed), (Some(period(101)), 50));
    bench.load(0, 0, 1000);
    let now = bench.clock.monotonic_ns();
    assert_eq!(bench.pit.slot.get(), Some(now + nanoseconds(1000, FREQUENCY)));
    bench.write(3, 0x30);
    assert_eq!(bench.pit.slot.get(), None);
}

#[test]
fn latches_hold_until_they_are_read() {
    let mut bench = bench();
    bench.load(0, 2, 1000);
    bench.tick(10);
    bench.write(3, 0x00);
    bench.tick(20);
    bench.write(3, 0x00);
    assert_eq!((bench.read(0), bench.read(0)), (0xde, 0x03));
    // Status and count of channels 0 and 2; a channel without count says so.
    bench.write(3, 0xca);
    assert_eq!(bench.read(0), 0xb4);
    assert_eq!((bench.read(0), bench.read(0)), (0xd4, 0x03));
    assert_eq!(bench.read(2) & 0x40, 0x40);
}

#[test]
fn one_byte_and_decimal_counts() {
    let mut bench = bench();
    bench.write(3, 0x14);
    bench.write(0, 100);
    assert_eq!(bench.count_byte(), 100);
    bench.write(3, 0x24);
    bench.write(0, 2);
    bench.tick(1);
    assert_eq!(bench.count_byte(), 1, "the high byte of 0x01ff");
    bench.write(3, 0x35);
    bench.write(0, 0x00);
    bench.write(0, 0x10);
    let start = bench.clock.monotonic_ns();
    bench.clock.to(start + nanoseconds(1, FREQUENCY));
    assert_eq!(bench.count(0), 0x0999);
}

impl Bench {
    fn count_byte(&mut self) -> u8 {
        self.write(3, 0);
        self.read(0)
    }
}

/// As Linux calibrates its TSC: the gate starts channel 2, port 0x61 shows its output.
#[test]
fn the_gate_of_channel_2_is_port_61() {
    let pit = Arc::new(crate::sync::Mutex::new(bench().pit));
    let mut port = SystemControl(pit.clone());
    let at = Access { offset: 0, width: Width::Byte };
    let mut effects = Effects::new();
    port.write(at, 0x00, &mut effects);
    for (offset, value) in [(3, 0xb0), (2, 0x10), (2, 0x00)] {
        pit.lock().write(Access { offset, width: Width::Byte }, value, &mut effects);
    }
    assert_eq!(port.read(at, &mut effects) & 0x21, 0);
    port.write(at, 0x01, &mut effects);
    let now = pit.lock().now();
    let channel = &pit.lock().channels[2].clone();
    assert!(!channel.output(now + nanoseconds(15, FREQUENCY)));
    assert!(channel.output(now + nanoseconds(16, FREQUENCY)));
}

#[test]
fn a_gate_that_falls_stops_the_count() {
    let mut bench = bench();
    bench.pit.write_61(1);
    bench.load(2, 0, 100);
    bench.tick(40);
    bench.pit.write_61(0);
    bench.tick(80);
    assert_eq!(bench.count(2), 60);
    bench.pit.write_61(1);
    bench.tick(90);
    assert!((49..=50).contains(&bench.count(2)));
}

proptest! {
    /// A periodic count agrees with one that is counted down tick by tick.
    #[test]
    fn counts_agree_with_counting(count in 2u16..300, mode in 2u8..4, ticks in 0u64..2000) {
        let mut bench = bench();
        let count = if mode == 3 { count & !1 } else { count };
        bench.load(0, mode, count);
        let (mut value, step) = (count, if mode == 3 { 2 } else { 1 });
        for _ in 0..ticks {
            value -= step;
            if value == 0 { value = count; }
        }
        bench.tick(ticks);
        prop_assert_eq!(bench.count(0), value);
    }

    /// Whatever is written when: an answer, and a deadline that is not in the past.
    #[test]
    fn any_use_has_an_answer(
        steps in prop::collection::vec((0u64..5, any::<u8>(), any::<bool>(), 0u64..10_000_000), 0..200),
    ) {
        let mut bench = bench();
        for (port, value, write, wait) in steps {
            match (port, write) {
                (4, true) => bench.pit.write_61(value),
                (4, false) => { bench.pit.read_61(); }
                (port, true) => bench.write(port, value),
                (port, false) => { bench.read(port); }
            }
            let now = bench.clock.monotonic_ns() + wait;
            bench.clock.to(now);
            if bench.pit.slot.get().is_some_and(|at| at <= now) {
                bench.pit.expire(now, &mut Effects::new());
            }
            prop_assert!(bench.pit.slot.get().is_none_or(|at| at > now));
        }
    }
}

/// A vCPU that is not run for most of 100 ms, as Xen's and Linux's checks of the timer wait: they
/// want more than 4 of 10 edges.
#[test]
fn edges_of_a_time_in_which_nobody_served_them_follow() {
    const HZ_100: u16 = 11_932;
    let mut bench = bench();
    bench.load(0, 2, HZ_100);
    let period = nanoseconds(HZ_100.into(), FREQUENCY);
    let run = |bench: &mut Bench, from: u64, to: u64| {
        let (mut edges, mut now) = (0, BEGIN + from);
        while now <= BEGIN + to {
            bench.clock.to(now);
            bench.pit.expire(now, &mut Effects::new());
            edges += 1;
            now = bench.pit.slot.get().unwrap().max(now + 1);
        }
        edges
    };
    assert_eq!(run(&mut bench, 7 * period, 10 * period), 10);
    // Then it is as it was.
    let edge = bench.pit.slot.get().unwrap();
    assert_eq!((bench.pit.owed, edge), (0, BEGIN + nanoseconds(11 * u64::from(HZ_100), FREQUENCY)));
    // A machine that stands still for an hour owes no more than a second's edges.
    let hour = 3600 * 1_000_000_000;
    bench.pit.expire(BEGIN + hour, &mut Effects::new());
    assert_eq!(bench.pit.owed, MOST_OWED / period);
    // Neither does a count that is not that one's any more.
    bench.clock.to(BEGIN + hour);
    bench.load(0, 2, HZ_100);
    assert_eq!(bench.pit.owed, 0);
}
