//! ACPI's fixed hardware as its driver uses it.

use super::*;
use crate::device::{InterruptSink, Lines, MsiMessage, Trigger, Width};
use crate::modes::type1::board::Timers;
use crate::modes::type1::fixture::{BEGIN, JumpingClock, clock};
use proptest::prelude::*;

#[derive(Default)]
struct Pin(Mutex<bool>);

impl InterruptSink for Pin {
    fn set_line(&self, _: u32, asserted: bool) {
        *self.0.lock() = asserted;
    }
    fn pulse(&self, _: u32) {}
    fn msi(&self, _: MsiMessage) {}
}

struct Bench {
    pm: Arc<Mutex<Pm>>,
    lines: Lines,
    pin: Arc<Pin>,
    clock: Arc<JumpingClock>,
}

fn bench() -> Bench {
    let (clock, pin) = (clock(), Arc::new(Pin::default()));
    let lines = Lines::new(pin.clone());
    let sci = lines.source(9, Trigger::Level);
    let pm = Arc::new(Mutex::new(Pm::new(clock.clone(), Timers::new().slot(), sci)));
    Bench { pm, lines, pin, clock }
}

impl Bench {
    fn apply(&self, effects: Effects) -> bool {
        let mut off = false;
        for effect in effects {
            match effect {
                Effect::Raise(source) => self.lines.raise(source),
                Effect::Lower(source) => self.lines.lower(source),
                Effect::Shutdown => off = true,
                _ => unreachable!(),
            }
        }
        off
    }

    fn write(&self, offset: u64, width: Width, value: u64) -> bool {
        let mut effects = Effects::new();
        self.pm.lock().write(Access { offset, width }, value, &mut effects);
        self.apply(effects)
    }

    fn read(&self, offset: u64, width: Width) -> u64 {
        let access = Access { offset, width };
        self.pm.lock().read(access, &mut Effects::new()) & width.mask()
    }
}

#[test]
fn only_s5_turns_it_off() {
    let bench = bench();
    assert_eq!(bench.read(4, Width::Word), 1, "it is in ACPI mode");
    for kind in 0..8u64 {
        let off = bench.write(4, Width::Word, 1 << 13 | kind << 10);
        assert_eq!(off, kind == u64::from(SLP_TYP_S5), "{kind}");
        assert!(!bench.write(4, Width::Word, kind << 10));
    }
    let kind = u64::from(SLP_TYP_S5) << 2;
    assert!(!bench.write(5, Width::Byte, kind));
    assert!(bench.write(5, Width::Byte, 1 << 5 | kind));
}

#[test]
fn the_power_button_interrupts_until_it_is_seen() {
    let bench = bench();
    bench.apply(PowerButton(bench.pm.clone()).press());
    assert!(!*bench.pin.0.lock());
    assert_eq!(bench.read(0, Width::Word), 1 << 8);
    bench.write(2, Width::Word, 1 << 8);
    assert!(*bench.pin.0.lock());
    bench.write(0, Width::Word, 1 << 8);
    assert!(!*bench.pin.0.lock());
    assert_eq!(bench.read(0, Width::Word), 0);
}

#[test]
fn the_timer_counts_and_tells_of_its_highest_bit() {
    let bench = bench();
    bench.clock.to(BEGIN + 1_000_000_000);
    assert_eq!(bench.read(8, Width::Long), FREQUENCY);
    bench.write(2, Width::Word, 1);
    let at = bench.pm.lock().slot.get().unwrap();
    assert_eq!(at, BEGIN + nanoseconds(HALF, FREQUENCY));
    bench.clock.to(at);
    let mut effects = Effects::new();
    bench.pm.lock().expire(at, &mut effects);
    bench.apply(effects);
    assert!(*bench.pin.0.lock());
    assert_eq!(bench.read(8, Width::Long), HALF);
    bench.write(0, Width::Word, 1);
    assert!(!*bench.pin.0.lock());
    assert_eq!(bench.pm.lock().slot.get(), Some(BEGIN + nanoseconds(2 * HALF, FREQUENCY)));
}

#[test]
fn what_passed_before_a_reset_is_no_event_after_it() {
    let bench = bench();
    bench.clock.to(BEGIN + nanoseconds(HALF, FREQUENCY));
    bench.pm.lock().reset();
    assert_eq!(bench.read(0, Width::Word), 0);
    assert_eq!(bench.read(8, Width::Long), HALF, "the timer runs on");
}

proptest! {
    #[test]
    fn any_use_has_an_answer(
        steps in prop::collection::vec((0u64..12, 0usize..4, any::<u64>(), any::<bool>()), 0..100),
    ) {
        let bench = bench();
        for (offset, width, value, write) in steps {
            let width = Width::ALL[width];
            let offset = offset.min(12 - width.bytes());
            if write { bench.write(offset, width, value & width.mask()); }
            else { bench.read(offset, width); }
            let pm = bench.pm.lock();
            prop_assert_eq!(*bench.pin.0.lock(), pm.status.intersects(pm.enable));
        }
    }
}
