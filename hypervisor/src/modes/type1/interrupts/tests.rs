//! Both controllers by their data sheets, and anything at all.

use super::*;
use crate::device::Width;
use alloc::vec::Vec;
use proptest::prelude::*;

#[derive(Default)]
struct Log {
    messages: Mutex<Vec<MsiMessage>>,
    external: AtomicBool,
    watched: Mutex<[u64; 4]>,
}

impl Messages for Log {
    fn msi(&self, message: MsiMessage) {
        self.messages.lock().push(message);
    }
    fn external(&self, asserted: bool) {
        assert_ne!(self.external.swap(asserted, Ordering::SeqCst), asserted);
    }
    fn watch_ends(&self, vectors: [u64; 4]) {
        *self.watched.lock() = vectors;
    }
}

struct Bench {
    chip: Arc<Controllers>,
    log: Arc<Log>,
}

fn bench() -> Bench {
    let log = Arc::new(Log::default());
    Bench { chip: Arc::new(Controllers::new(log.clone())), log }
}

impl Bench {
    fn page(&self, offset: u64, value: u32) {
        let access = Access { offset, width: Width::Long };
        IoApicPage(self.chip.clone()).write(access, value.into(), &mut Effects::new());
    }

    fn register(&self, index: u32) -> u32 {
        self.page(0, index);
        let access = Access { offset: 0x10, width: Width::Long };
        let value = IoApicPage(self.chip.clone()).read(access, &mut Effects::new());
        u32::try_from(value).unwrap()
    }

    fn set_register(&self, index: u32, value: u32) {
        self.page(0, index);
        self.page(0x10, value);
    }

    /// The vectors that were sent since the last call.
    fn sent(&self) -> Vec<u32> {
        let messages = core::mem::take(&mut *self.log.messages.lock());
        messages.into_iter().map(|message| message.data & 0xff).collect()
    }

    fn ports(&self, port: u16) -> (PicPorts, Access) {
        let base = if port >= 0x4d0 { 0x4d0 } else { port & !1 };
        let access = Access { offset: u64::from(port - base), width: Width::Byte };
        (PicPorts { controllers: self.chip.clone(), base }, access)
    }

    fn out(&self, port: u16, value: u8) {
        let (mut ports, access) = self.ports(port);
        ports.write(access, value.into(), &mut Effects::new());
    }

    fn input(&self, port: u16) -> u8 {
        let (mut ports, access) = self.ports(port);
        ports.read(access, &mut Effects::new()).to_le_bytes()[0]
    }

    /// As a PC's firmware does: vectors from 0x20 and 0x28, nothing masked.
    fn initialize(&self, icw4: u8) {
        for (port, base, third) in [(0x20, 0x20, 4), (0xa0, 0x28, 2)] {
            self.out(port, 0x11);
            self.out(port + 1, base);
            self.out(port + 1, third);
            self.out(port + 1, icw4);
            self.out(port + 1, 0);
        }
    }

    fn acknowledge(&self) -> Option<u8> {
        self.chip.external().then(|| self.chip.acknowledge())
    }
}

/// A line that is wired to the pin of its own number.
const LINE: u32 = 20;
const ENTRY: u32 = 0x10 + 2 * LINE;

#[test]
fn registers_of_the_io_apic() {
    let bench = bench();
    assert_eq!(bench.register(1), 0x0017_0020);
    bench.set_register(0, 0x0f00_0000);
    assert_eq!(bench.register(0), 0x0f00_0000);
    assert_eq!(bench.register(ENTRY), 0x1_0000);
    bench.set_register(ENTRY, !0);
    bench.set_register(ENTRY + 1, !0);
    assert_eq!((bench.register(ENTRY), bench.register(ENTRY + 1)), (0x1_afff, 0xff00_0000));
    assert_eq!(bench.register(0x40), 0);
}

#[test]
fn an_edge_is_sent_once_and_lost_while_masked() {
    let bench = bench();
    bench.chip.pulse(LINE);
    bench.set_register(ENTRY, 0x31);
    assert_eq!(bench.sent(), [0u32; 0]);
    bench.chip.set_line(LINE, true);
    bench.chip.set_line(LINE, true);
    assert_eq!(bench.sent(), [0x31]);
    bench.chip.end_of_interrupt(0x31);
    assert_eq!(bench.sent(), [0u32; 0]);
    bench.chip.set_line(LINE, false);
    bench.chip.set_line(LINE, true);
    assert_eq!(bench.sent(), [0x31]);
}

#[test]
fn a_level_is_sent_until_it_is_served() {
    let bench = bench();
    bench.chip.set_line(LINE, true);
    bench.set_register(ENTRY, 0x8031);
    assert_eq!(bench.sent(), [0x31], "unmasking sends what waits");
    assert_eq!(bench.register(ENTRY), 0xc031, "remote IRR");
    assert_eq!(*bench.log.watched.lock(), [1 << 0x31, 0, 0, 0]);
    bench.chip.set_line(LINE, false);
    bench.chip.set_line(LINE, true);
    assert_eq!(bench.sent(), [0u32; 0], "not before its end");
    bench.chip.end_of_interrupt(0x31);
    assert_eq!(bench.sent(), [0x31], "still asserted");
    bench.chip.set_line(LINE, false);
    bench.page(0x40, 0x31);
    assert_eq!((bench.sent(), bench.register(ENTRY)), (Vec::new(), 0x8031));
    bench.chip.set_line(LINE, true);
    assert_eq!(bench.sent(), [0x31]);
    // The way of systems that know no EOI register.
    bench.set_register(ENTRY, 0x1_0031);
    assert_eq!(bench.register(ENTRY), 0x1_0031);
    bench.set_register(ENTRY, 0x8031);
    assert_eq!(bench.sent(), [0x31]);
}

#[test]
fn messages_say_where_and_how() {
    let bench = bench();
    bench.set_register(ENTRY + 1, 0x0500_0000);
    bench.set_register(ENTRY, 0x8931);
    bench.chip.set_line(LINE, true);
    let message = bench.log.messages.lock()[0];
    assert_eq!((message.address, message.data), (0xfee0_5004, 0xc131));
    // An NMI is an edge whatever its entry says.
    bench.set_register(ENTRY, 0x8400);
    bench.chip.pulse(LINE);
    assert_eq!(bench.register(ENTRY), 0x8400);
}

#[test]
fn the_timer_is_at_pin_2() {
    let bench = bench();
    bench.set_register(0x10, 0x30);
    bench.set_register(0x14, 0x32);
    bench.chip.pulse(TIMER_LINE);
    assert_eq!(bench.sent(), [0x32]);
}

#[test]
fn the_pair_serves_by_priority() {
    let bench = bench();
    bench.initialize(1);
    for line in [4, 1, 9] {
        bench.chip.pulse(line);
    }
    assert_eq!(bench.acknowledge(), Some(0x21));
    assert_eq!(bench.acknowledge(), None, "1 is being served");
    bench.chip.pulse(0);
    assert_eq!(bench.acknowledge(), Some(0x20), "0 is higher");
    bench.out(0x20, 0x20);
    bench.out(0x20, 0x20);
    assert_eq!(bench.acknowledge(), Some(0x29), "the slave is input 2");
    bench.out(0xa0, 0x20);
    assert_eq!(bench.acknowledge(), None);
    bench.out(0x20, 0x62);
    assert_eq!(bench.acknowledge(), Some(0x24));
    bench.out(0x20, 0x64);
    assert!(!bench.log.external.load(Ordering::SeqCst));
}

#[test]
fn masks_hold_edges_back_and_registers_show_them() {
    let bench = bench();
    bench.initialize(1);
    bench.out(0x21, 0x10);
    bench.chip.pulse(4);
    assert_eq!(bench.acknowledge(), None);
    assert_eq!((bench.input(0x20), bench.input(0x21)), (0x10, 0x10));
    bench.out(0x21, 0);
    assert_eq!(bench.acknowledge(), Some(0x24));
    bench.out(0x20, 0x0b);
    assert_eq!(bench.input(0x20), 0x10);
    bench.out(0x20, 0x0a);
    assert_eq!(bench.input(0x20), 0);
}

#[test]
fn rotation_polling_and_automatic_ends() {
    let bench = bench();
    bench.initialize(1);
    (3..5).for_each(|line| bench.chip.pulse(line));
    assert_eq!(bench.acknowledge(), Some(0x23));
    bench.out(0x20, 0xa0);
    bench.chip.pulse(3);
    assert_eq!(bench.acknowledge(), Some(0x24), "3 has the lowest priority now");
    bench.out(0x20, 0x20);
    bench.out(0x20, 0x0c);
    assert_eq!(bench.input(0x20), 0x83, "a poll acknowledges");
    bench.out(0x20, 0x20);
    bench.out(0x20, 0x0c);
    assert_eq!(bench.input(0x20), 0);
    bench.initialize(3);
    bench.chip.pulse(5);
    bench.chip.pulse(6);
    assert_eq!((bench.acknowledge(), bench.acknowledge()), (Some(0x25), Some(0x26)));
}

#[test]
fn special_mask_lets_the_lower_in() {
    let bench = bench();
    bench.initialize(1);
    bench.chip.pulse(3);
    assert_eq!(bench.acknowledge(), Some(0x23));
    bench.chip.pulse(6);
    assert_eq!(bench.acknowledge(), None);
    bench.out(0x21, 0x08);
    bench.out(0x20, 0x68);
    assert_eq!(bench.acknowledge(), Some(0x26));
}

#[test]
fn level_triggered_inputs_repeat_and_vanish() {
    let bench = bench();
    bench.initialize(1);
    bench.out(0x4d0, 0xff);
    bench.out(0x4d1, 0xff);
    assert_eq!((bench.input(0x4d0), bench.input(0x4d1)), (0xf8, 0xde));
    bench.chip.set_line(10, true);
    assert_eq!(bench.acknowledge(), Some(0x2a));
    bench.out(0xa0, 0x20);
    bench.out(0x20, 0x20);
    assert_eq!(bench.acknowledge(), Some(0x2a), "still asserted");
    bench.out(0xa0, 0x20);
    bench.out(0x20, 0x20);
    bench.chip.set_line(10, false);
    assert_eq!(bench.acknowledge(), None);
}

#[test]
fn a_request_that_is_gone_is_spurious() {
    let bench = bench();
    bench.initialize(1);
    assert_eq!(bench.chip.acknowledge(), 0x27);
    bench.out(0x20, 0x0b);
    assert_eq!(bench.input(0x20), 0, "it is not in service");
}

proptest! {
    /// Whatever is written and whichever line moves: the line to the processor is what the pair
    /// says, an entry's remote IRR stays with a level-triggered interrupt, and nothing panics.
    #[test]
    fn any_use_has_an_answer(
        steps in prop::collection::vec((0u8..6, any::<u16>(), any::<u32>()), 0..200),
    ) {
        let bench = bench();
        const PORTS: [u16; 6] = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1];
        for (what, a, value) in steps {
            match what {
                0 => bench.page(u64::from(a) & 0xff0, value),
                1 => bench.set_register(u32::from(a) & 0x3f, value),
                2 => bench.out(PORTS[usize::from(a) % 6], value.to_le_bytes()[0]),
                3 => { bench.input(PORTS[usize::from(a) % 6]); }
                4 => bench.chip.set_line(u32::from(a) % 26, value & 1 != 0),
                _ => {
                    bench.chip.acknowledge();
                    bench.chip.end_of_interrupt(value.to_le_bytes()[0]);
                }
            }
            bench.log.messages.lock().clear();
            prop_assert_eq!(bench.chip.external(), bench.log.external.load(Ordering::SeqCst));
            for pin in 0..24 {
                let entry = bench.register(0x10 + 2 * pin);
                prop_assert!(entry & 0x4000 == 0 || entry & 0x8000 != 0);
            }
        }
    }

    /// The pair agrees with a list of requests served by fixed priority.
    #[test]
    fn priorities_agree_with_a_list(lines in prop::collection::vec(0u32..16, 1..30)) {
        let bench = bench();
        bench.initialize(1);
        let mut waiting = [false; 16];
        for line in lines.into_iter().filter(|line| *line != 2) {
            bench.chip.pulse(line);
            waiting[usize::try_from(line).unwrap()] = true;
        }
        // The slave's inputs have the place of input 2.
        for line in [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7] {
            if core::mem::take(&mut waiting[usize::from(line)]) {
                prop_assert_eq!(bench.acknowledge(), Some(0x20 + line));
                if line >= 8 { bench.out(0xa0, 0x20); }
                bench.out(0x20, 0x20);
            }
        }
        prop_assert_eq!(bench.acknowledge(), None);
    }
}
