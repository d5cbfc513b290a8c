//! The data sheet's registers one by one, both ends of the line, and anything at all.

use super::*;
use crate::device::{InterruptSink, MsiMessage, Trigger, Width};
use crate::host::{Console, HostError};
use crate::memory::GuestSlice;
use crate::modes::type1::board::{Board, Power, Timed, Timers};
use crate::modes::type1::fixture::{JumpingClock, clock};
use crate::modes::type1::host::{Arrival, ConsoleInput};
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use proptest::prelude::*;

const LINE: u32 = 4;

#[derive(Default)]
struct Pin(Mutex<bool>);

impl InterruptSink for Pin {
    fn set_line(&self, line: u32, asserted: bool) {
        assert_eq!(line, LINE);
        *self.0.lock() = asserted;
    }
    fn pulse(&self, _: u32) {}
    fn msi(&self, _: MsiMessage) {}
}

/// What is done while the console takes its next piece.
type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

struct Screen(Arc<Mutex<Vec<u8>>>, Meanwhile);

impl Console for Screen {
    fn write(&self, text: GuestSlice<'_>) -> Result<(), HostError> {
        let meanwhile = self.1.lock().take();
        if let Some(act) = meanwhile {
            act();
        }
        let mut bytes = alloc::vec![0; text.len()];
        text.copy_to(&mut bytes);
        self.0.lock().extend(bytes);
        Ok(())
    }
}

struct Bench {
    uart: Arc<Mutex<Uart>>,
    board: Arc<Board>,
    pin: Arc<Pin>,
    link: Arc<UartLink>,
    input: Arc<SerialInput>,
    screen: Arc<Mutex<Vec<u8>>>,
    meanwhile: Meanwhile,
    clock: Arc<JumpingClock>,
}

fn bench() -> Bench {
    let (clock, pin, screen) = (clock(), Arc::new(Pin::default()), Arc::default());
    let board = Arc::new(Board::new(clock.clone(), pin.clone(), Arc::new(Power::new())));
    let slot = Timers::new().slot();
    let meanwhile = Meanwhile::default();
    let console = Box::new(Screen(Arc::clone(&screen), meanwhile.clone()));
    let link = Arc::new(UartLink::new(console, clock.clone(), slot));
    let input = Arc::new(SerialInput::default());
    let irq = board.devices.lines.source(LINE, Trigger::Level);
    let uart = Arc::new(Mutex::new(Uart::new(irq, link.clone(), WorkRef::new(input.clone()))));
    input.connect(uart.clone(), board.clone());
    link.connect(&uart, &board);
    Bench { uart, board, pin, link, input, screen, meanwhile, clock }
}

impl Bench {
    fn write(&self, offset: u64, value: u8) {
        let mut effects = Effects::new();
        let access = Access { offset, width: Width::Byte };
        self.uart.lock().write(access, value.into(), &mut effects);
        self.board.apply(effects);
    }

    fn read(&self, offset: u64) -> u8 {
        let mut effects = Effects::new();
        let access = Access { offset, width: Width::Byte };
        let value = self.uart.lock().read(access, &mut effects);
        self.board.apply(effects);
        value.to_le_bytes()[0]
    }

    fn pin(&self) -> bool {
        *self.pin.0.lock()
    }
}

#[test]
fn registers_keep_what_they_are_told() {
    let bench = bench();
    for value in [0x5a, 0xa5] {
        bench.write(7, value);
        assert_eq!(bench.read(7), value);
    }
    bench.write(3, 0x83);
    bench.write(0, 0x0c);
    bench.write(1, 0x01);
    assert_eq!((bench.read(0), bench.read(1)), (0x0c, 0x01));
    bench.write(3, 0x03);
    bench.write(1, 0xff);
    assert_eq!(bench.read(1), 0x0f);
    assert_eq!(bench.read(5), 0x60);
    assert_eq!(bench.read(6) & 0xf0, 0xb0);
}

/// Linux's and others' way to tell a 16550A: FIFO bits come and go.
#[test]
fn it_is_a_16550a() {
    let bench = bench();
    assert_eq!(bench.read(2), 0x01);
    bench.write(2, 0x01);
    assert_eq!(bench.read(2), 0xc1);
    bench.write(2, 0x00);
    assert_eq!(bench.read(2), 0x01);
}

#[test]
fn the_transmitters_interrupt_comes_and_goes() {
    let bench = bench();
    bench.write(4, 0x08);
    bench.write(1, 0x02);
    assert!(bench.pin());
    assert_eq!(bench.read(2), 0x02);
    assert!(!bench.pin(), "reading its identification takes it away");
    assert_eq!(bench.read(2), 0x01);
    bench.write(0, b'x');
    assert!(bench.pin());
    bench.write(4, 0x00);
    assert!(!bench.pin(), "OUT2 gates it");
}

#[test]
fn the_receivers_interrupt_follows_the_trigger_level() {
    let bench = bench();
    bench.write(4, 0x08);
    bench.write(1, 0x01);
    bench.write(2, 0x81);
    assert_eq!(bench.input.type_in(b"abc"), 3);
    assert!(bench.pin());
    assert_eq!(bench.read(2), 0xcc, "below the level of 8 it is the time-out");
    assert_eq!(bench.input.type_in(b"defgh"), 5);
    assert_eq!(bench.read(2), 0xc4);
    let bytes: Vec<u8> =
        core::iter::from_fn(|| (bench.read(5) & 1 != 0).then(|| bench.read(0))).collect();
    assert_eq!(bytes, b"abcdefgh");
    assert!(!bench.pin());
}

struct Count(AtomicU32);

impl Arrival for Count {
    fn arrived(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn input_waits_for_room_and_the_host_is_told_of_it() {
    let bench = bench();
    let told = Arc::new(Count(AtomicU32::new(0)));
    bench.input.on_room(told.clone());
    let text: Vec<u8> = (0..=u8::MAX).cycle().take(6000).collect();
    let mut typed = bench.input.type_in(&text);
    assert_eq!(typed, INPUT);
    let mut bytes = Vec::new();
    let mut seen = 0;
    while bench.read(5) & 1 != 0 {
        bytes.push(bench.read(0));
        if told.0.load(Ordering::SeqCst) > seen {
            seen += 1;
            typed += bench.input.type_in(&text[typed..]);
        }
    }
    assert_eq!((bytes, seen), (text, 1));
    bench.input.disconnect();
    assert_eq!(bench.input.type_in(b"x"), 0);
}

#[test]
fn loopback_leads_back() {
    let bench = bench();
    bench.write(2, 0x01);
    bench.write(4, 0x1a);
    assert_eq!(bench.read(6) & 0xf0, 0x90, "RTS is CTS, OUT2 is DCD");
    for byte in 0..17 {
        bench.write(0, byte);
    }
    assert_eq!(bench.read(5) & 3, 3, "the 17th has overrun");
    assert_eq!(bench.read(5) & 3, 1);
    assert_eq!((0..16).map(|_| bench.read(0)).collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
    bench.link.flush();
    assert!(bench.screen.lock().is_empty());
    bench.write(4, 0x0b);
    assert_eq!(bench.read(6) & 0x0f, 0x02, "DSR has changed");
    assert_eq!(bench.read(6) & 0x0f, 0);
}

/// The drivers of Linux and others write a whole FIFO when the transmitter is empty.
fn write_while_empty(bench: &Bench, sent: &AtomicU32) {
    while bench.read(5) & 0x20 != 0 {
        (0..16).for_each(|_| bench.write(0, b'x'));
        sent.fetch_add(16, Ordering::SeqCst);
    }
}

/// While one processor waits for a console that takes nothing, another one goes on printing.
#[test]
fn a_slow_console_loses_nothing_and_is_told_when_there_is_room() {
    for by_interrupt in [false, true] {
        let (bench, sent) = (Arc::new(bench()), Arc::new(AtomicU32::new(0)));
        bench.write(2, 0x01);
        bench.write(4, 0x08);
        let other = {
            let (bench, sent) = (bench.clone(), sent.clone());
            move || {
                bench.write(0, b'x');
                write_while_empty(&bench, &sent);
                if by_interrupt {
                    bench.write(1, 0x02);
                    assert!(!bench.pin(), "it is full");
                }
                assert_eq!(bench.read(2) & 0xf, 1, "no cause, which a look would take away");
            }
        };
        *bench.meanwhile.lock() = Some(Box::new(other));
        b"one\n".iter().for_each(|byte| bench.write(0, *byte));
        let there = |what| bench.screen.lock().iter().filter(|byte| **byte == what).count();
        assert_eq!(there(b'x'), usize::try_from(sent.load(Ordering::SeqCst)).unwrap() + 1);
        assert!(there(b'x') > 4000 && bench.screen.lock().starts_with(b"one\n"));
        assert_eq!((bench.pin(), bench.read(5) & 0x60), (by_interrupt, 0x60));
        if by_interrupt {
            assert_eq!((bench.read(2) & 0xf, bench.pin()), (2, false));
        }
    }
}

#[test]
fn output_goes_by_the_line_or_after_a_while() {
    let bench = bench();
    b"one\ntwo".iter().for_each(|byte| bench.write(0, *byte));
    assert_eq!(*bench.screen.lock(), b"one\n");
    bench.clock.to(u64::MAX / 2);
    let mut effects = Effects::new();
    Flush(bench.link.clone()).expire(u64::MAX / 2, &mut effects);
    bench.board.apply(effects);
    assert_eq!(*bench.screen.lock(), b"one\ntwo");
}

proptest! {
    /// Whatever a guest does to the registers and whatever is typed: the line is high just while
    /// the identification names a cause that is let through, and nothing panics.
    #[test]
    fn any_use_has_an_answer(
        steps in prop::collection::vec((0u64..8, any::<u8>(), 0u8..3, 0usize..4), 0..300),
    ) {
        let bench = bench();
        for (offset, value, what, width) in steps {
            match what {
                0 => { bench.read(offset); }
                1 => bench.write(offset, value),
                _ => {
                    let width = Width::ALL[width];
                    let access = Access { offset: offset.min(8 - width.bytes()), width };
                    let mut effects = Effects::new();
                    let value = u64::from(value).wrapping_mul(0x0101_0101_0101_0101);
                    bench.uart.lock().write(access, value, &mut effects);
                    bench.board.apply(effects);
                    bench.input.type_in(&[value.to_le_bytes()[0]; 7]);
                }
            }
            let uart = bench.uart.lock();
            let gate = uart.control.contains(Control::OUT2) && !uart.is_looped();
            prop_assert_eq!(bench.pin(), gate && uart.cause() & 1 == 0);
        }
    }
}
