//! The clock as a driver reads and sets it, its interrupts, and anything at all.

use super::*;
use crate::device::{InterruptSink, Lines, MsiMessage, Trigger, Width};
use crate::modes::type1::board::Timers;
use crate::modes::type1::fixture::{BEGIN, JumpingClock, WALL, clock};
use alloc::vec::Vec;
use proptest::prelude::*;

struct Nowhere;

impl InterruptSink for Nowhere {
    fn set_line(&self, _: u32, _: bool) {}
    fn pulse(&self, _: u32) {}
    fn msi(&self, _: MsiMessage) {}
}

struct Bench {
    rtc: Rtc,
    clock: Arc<JumpingClock>,
}

fn bench() -> Bench {
    let clock = clock();
    let irq = Lines::new(Arc::new(Nowhere)).source(8, Trigger::Level);
    let rtc = Rtc::new(clock.clone(), Timers::new().slot(), irq, 3 << 30);
    Bench { rtc, clock }
}

impl Bench {
    fn port(&mut self, offset: u64, value: Option<u8>) -> u8 {
        let access = Access { offset, width: Width::Byte };
        let mut effects = Effects::new();
        match value {
            Some(value) => self.rtc.write(access, value.into(), &mut effects),
            None => return self.rtc.read(access, &mut effects).to_le_bytes()[0],
        }
        0
    }

    fn get(&mut self, index: u8) -> u8 {
        self.port(0, Some(index));
        self.port(1, None)
    }

    fn set(&mut self, index: u8, value: u8) {
        self.port(0, Some(index));
        self.port(1, Some(value));
    }

    fn wait(&mut self, ns: u64) {
        let now = self.clock.monotonic_ns() + ns;
        self.clock.to(now);
        if self.rtc.slot.get().is_some_and(|at| at <= now) {
            self.rtc.expire(now, &mut Effects::new());
        }
    }

    fn time(&mut self) -> Vec<u8> {
        [0x32, 9, 8, 7, 4, 2, 0].map(|index| self.get(index)).into()
    }
}

#[test]
fn it_shows_the_hosts_time() {
    let mut bench = bench();
    // 2023-11-14 22:13:20, a Tuesday.
    assert_eq!(WALL, 1_700_000_000 * SECOND);
    assert_eq!(bench.time(), [0x20, 0x23, 0x11, 0x14, 0x22, 0x13, 0x20]);
    assert_eq!(bench.get(6), 3);
    bench.wait(40 * SECOND);
    assert_eq!(bench.time(), [0x20, 0x23, 0x11, 0x14, 0x22, 0x14, 0x00]);
    bench.set(0x0b, 6);
    assert_eq!(bench.time(), [0x20, 23, 11, 14, 22, 14, 0]);
    bench.set(0x0b, 0);
    assert_eq!(bench.get(4), 0x90, "ten in the afternoon");
    assert_eq!((bench.get(0x0a), bench.get(0x0d)), (0x26, 0x80));
}

#[test]
fn what_is_set_goes_on_from_there() {
    let mut bench = bench();
    bench.set(0x0b, 0x82);
    for (index, value) in [(0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59)] {
        bench.set(index, value);
    }
    bench.set(0, 0x58);
    bench.wait(5 * SECOND);
    assert_eq!(bench.get(0), 0x58, "it stands while it is set");
    bench.set(0x0b, 0x02);
    bench.wait(3 * SECOND);
    assert_eq!(bench.time(), [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x01]);
}

#[test]
fn an_update_is_announced() {
    let mut bench = bench();
    bench.wait(SECOND - WARNING);
    assert_eq!(bench.get(0x0a) & 0x80, 0x80);
    bench.wait(WARNING);
    assert_eq!(bench.get(0x0a) & 0x80, 0);
}

#[test]
fn interrupts_come_when_they_are_due() {
    let mut bench = bench();
    bench.get(0x0c);
    bench.set(0x0b, 0x12);
    assert_eq!(bench.rtc.slot.get(), Some(BEGIN + SECOND));
    bench.wait(SECOND);
    assert!(bench.rtc.asserted);
    // The flags of what was not enabled are there too.
    assert_eq!(bench.get(0x0c) & 0x90, 0x90);
    assert!(!bench.rtc.asserted);
    assert_eq!(bench.get(0x0c) & 0xb0, 0);
    // An alarm at any hour and minute, second 30.
    for (index, value) in [(1, 0x30), (3, 0xff), (5, 0xff), (0x0b, 0x22)] {
        bench.set(index, value);
    }
    assert_eq!(bench.rtc.slot.get(), Some(BEGIN + 10 * SECOND));
    bench.wait(9 * SECOND);
    assert_eq!(bench.get(0x0c) & 0xb0, 0xb0);
    // 1024 Hz.
    bench.set(0x0b, 0x42);
    let mut last = bench.clock.monotonic_ns();
    for _ in 0..5 {
        let next = bench.rtc.slot.get().unwrap();
        assert!(next > last && next - last <= 976_563);
        last = next;
        bench.wait(next - bench.clock.monotonic_ns());
        assert_eq!(bench.get(0x0c) & 0xc0, 0xc0);
    }
}

#[test]
fn memory_is_told() {
    let mut bench = bench();
    assert_eq!((bench.get(0x15), bench.get(0x16)), (0x80, 0x02));
    assert_eq!((bench.get(0x30), bench.get(0x31)), (0xff, 0xff));
    let above_16 = u16::from_le_bytes([bench.get(0x34), bench.get(0x35)]);
    assert_eq!(u64::from(above_16) << 16, ram(3 << 30)[0].end - (16 << 20));
    assert_eq!(bench.get(0x5c), 0x10, "256 MiB above 4 GiB, in units of 64 KiB");
    bench.set(0x5f, 3);
    assert_eq!(bench.get(0x5f), 3);
}

proptest! {
    #[test]
    fn any_use_has_an_answer(
        steps in prop::collection::vec(
            (prop_oneof![0u8..0x10, Just(0x32), any::<u8>()], any::<u8>(), any::<bool>(), 0u64..3_000_000_000),
            0..100,
        ),
    ) {
        let mut bench = bench();
        for (index, value, write, wait) in steps {
            if write { bench.set(index, value) } else { bench.get(index); }
            bench.wait(wait);
            let now = bench.clock.monotonic_ns();
            prop_assert!(bench.rtc.slot.get().is_none_or(|at| at > now));
        }
    }
}
