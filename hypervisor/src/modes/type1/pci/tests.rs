//! PCI as a guest drives it, by ports and by ECAM, and as a hostile one does.

use super::*;
use crate::device::{
    Access, Bus, Device, DeviceRef, Devices, Effects, InterruptSink, Lines, MsiMessage, Request,
    Trigger, Unclaimed,
};
use crate::memory::Gpa;
use crate::modes::type1::layout::{ECAM, PCI_WINDOW};
use crate::sync::Mutex;
use crate::vcpu::{VmEntry, VmExit};
use alloc::sync::Arc;
use alloc::vec::Vec;
use proptest::prelude::*;

#[derive(Default)]
struct Sink(Mutex<Vec<MsiMessage>>, Mutex<Vec<(u32, bool)>>);

impl InterruptSink for Sink {
    fn set_line(&self, line: u32, asserted: bool) {
        self.1.lock().push((line, asserted));
    }
    fn pulse(&self, _: u32) {}
    fn msi(&self, message: MsiMessage) {
        self.0.lock().push(message);
    }
}

/// Reads as its number and the offset.
struct Probe(u8);

impl Device for Probe {
    fn name(&self) -> &str {
        "probe"
    }
    fn read(&mut self, access: Access, _: &mut Effects) -> u64 {
        u64::from(self.0) << 24 | access.offset
    }
    fn write(&mut self, _: Access, _: u64, _: &mut Effects) {}
}

struct Bench {
    devices: Devices,
    machine: Machine,
    sink: Arc<Sink>,
    interrupts: Arc<Interrupts>,
}

const SLOT: u8 = 3;
const REQUESTER: u32 = (SLOT as u32) << 3;
const NUMBER: u8 = SLOT << 3;

/// A device with a 32-bit BAR (0), MSI-X (1), ports (2) and a 64-bit BAR (4, 5).
fn bench(firmware: bool) -> Bench {
    let sink = Arc::new(Sink::default());
    let bus = || Bus::new(Unclaimed::Ones);
    let devices = Devices::new(bus(), bus(), Lines::new(sink.clone()));
    let machine = attach(&devices, firmware).unwrap();
    let pin = devices.lines.source(interrupt_line(SLOT, 0), Trigger::Level);
    let interrupts = Arc::new(Interrupts::new(REQUESTER, Some(pin), 3));
    let mut function = Function::new(&Identity {
        vendor: 0x1af4,
        device: 0x1042,
        revision: 1,
        class: [1, 0, 0],
        subsystem: (0x1af4, 0x1100),
    });
    function.add_bar(0, BarKind::Memory32, 0x3000, DeviceRef::new(Probe(1)));
    function.add_bar(2, BarKind::Io, 0x20, DeviceRef::new(Probe(2)));
    function.add_bar(4, BarKind::Memory64, 1 << 33, DeviceRef::new(Probe(3)));
    function.add_interrupts(interrupts.clone(), 1);
    machine.bus.insert(SLOT, function);
    Bench { devices, machine, sink, interrupts }
}

impl Bench {
    fn exit(&self, exit: &VmExit) -> (u64, Option<Request>) {
        let outcome = self.devices.answer(exit).unwrap();
        let data = match outcome.entry {
            Some(VmEntry::Data(data)) => data,
            _ => 0,
        };
        (data, outcome.request)
    }

    fn out(&self, port: u16, size: u8, value: u32) -> Option<Request> {
        self.exit(&VmExit::Io { port, size, write: Some(value) }).1
    }

    fn port(&self, port: u16, size: u8) -> u64 {
        self.exit(&VmExit::Io { port, size, write: None }).0
    }

    fn mmio(&self, gpa: u64, size: u8, write: Option<u64>) -> u64 {
        self.exit(&VmExit::Mmio { gpa: Gpa(gpa), size, write }).0
    }

    fn select(&self, number: u8, register: u16) -> u16 {
        let low = u32::from(register & 0xfc);
        self.out(0xcf8, 4, 1 << 31 | u32::from(number) << 8 | low);
        0xcfc + (register & 3)
    }

    fn config(&self, register: u16, size: u8) -> u64 {
        self.port(self.select(NUMBER, register), size)
    }

    fn set(&self, register: u16, size: u8, value: u32) {
        self.out(self.select(NUMBER, register), size, value);
    }

    /// Where a capability is, by the list.
    fn capability(&self, id: u8) -> u16 {
        let mut at = self.config(0x34, 1);
        while at != 0 {
            let header = self.config(u16::try_from(at).unwrap(), 2);
            if header & 0xff == u64::from(id) {
                return u16::try_from(at).unwrap();
            }
            at = header >> 8;
        }
        panic!("no capability {id:#x}");
    }

    fn messages(&self) -> Vec<(u64, u32)> {
        let taken = core::mem::take(&mut *self.sink.0.lock());
        taken.iter().map(|message| (message.address, message.data)).collect()
    }
}

#[test]
fn functions_are_found_by_both_mechanisms() {
    let bench = bench(false);
    let ecam = |number: u64, register: u64, size| {
        bench.mmio(ECAM.start + (number << 12) + register, size, None)
    };
    for (number, id) in [(0u8, 0x29c0_8086), (NUMBER, 0x1042_1af4), (0xf8, 0x2918_8086)] {
        assert_eq!(bench.port(bench.select(number, 0), 4), id);
        assert_eq!(ecam(number.into(), 0, 4), id);
        assert_eq!(ecam(number.into(), 1, 2), id >> 8 & 0xffff);
        assert_eq!(ecam(number.into(), 0xa, 2), bench.port(bench.select(number, 0xa), 2));
        assert_eq!(ecam(number.into(), 0x100, 4), 0xffff_ffff);
    }
    assert_eq!(bench.port(bench.select(8, 0), 4), 0xffff_ffff);
    assert_eq!(ecam(9, 0, 8), u64::MAX);
    assert_eq!(ecam(1 << 8, 0, 4), 0xffff_ffff);
    bench.out(0xcf8, 4, 0);
    assert_eq!(bench.port(0xcfc, 4), 0xffff_ffff);
    bench.select(0, 0);
    assert_eq!(bench.port(0xcfe, 4), 0xffff_ffff);
    assert_eq!(bench.port(0xcf8, 4), 0x8000_0000);
}

#[test]
fn bars_tell_their_sizes_and_kinds() {
    let bench = bench(true);
    let size = |register: u16| {
        bench.set(register, 4, 0xffff_ffff);
        bench.config(register, 4)
    };
    assert_eq!(size(0x10), 0xffff_c000);
    assert_eq!(size(0x14), 0xffff_f000);
    assert_eq!(size(0x18), 0xffe1);
    assert_eq!((size(0x1c), size(0x30)), (0, 0));
    assert_eq!((size(0x20), size(0x24)), (0x4, 0xffff_fffe));
}

#[test]
fn a_bar_answers_where_and_when_it_is_told_to() {
    let bench = bench(true);
    bench.set(0x10, 4, 0xd000_0000);
    bench.set(0x18, 4, 0x5000);
    bench.set(0x20, 4, 0);
    bench.set(0x24, 4, 0x10);
    let read = || {
        (
            bench.mmio(0xd000_3ffc, 4, None),
            bench.port(0x5004, 4),
            bench.mmio(0x10_0000_0008, 4, None),
        )
    };
    let nothing = 0xffff_ffff;
    assert_eq!(read(), (nothing, nothing, nothing));
    bench.set(4, 2, 2);
    assert_eq!(read(), (0x100_3ffc, nothing, 0x300_0008));
    bench.set(4, 2, 3);
    assert_eq!(read(), (0x100_3ffc, 0x200_0004, 0x300_0008));
    bench.set(0x10, 4, 0xd100_0000);
    assert_eq!(read().0, nothing);
    assert_eq!(bench.mmio(0xd100_0010, 4, None), 0x100_0010);
    // Onto ECAM once it is there: the one that came first answers.
    bench.out(bench.select(0, 0x60), 4, 0xe000_0001);
    bench.set(0x10, 4, 0xe000_0000);
    assert_eq!(bench.mmio(0xe000_0000, 4, None), 0x29c0_8086);
    bench.set(0x10, 4, 0xd000_0000);
    assert_eq!(bench.mmio(0xe000_0000, 4, None), 0x29c0_8086);
    assert_eq!(read().0, 0x100_3ffc);
    bench.set(4, 2, 0);
    assert_eq!(read(), (nothing, nothing, nothing));
}

#[test]
fn ecam_is_where_firmware_puts_it() {
    let bench = bench(true);
    assert_eq!(bench.machine.ecam(), None);
    assert_eq!(bench.mmio(ECAM.start, 4, None), 0xffff_ffff);
    bench.out(bench.select(0, 0x64), 4, 0);
    bench.out(bench.select(0, 0x60), 4, 0xb000_0001);
    assert_eq!(bench.mmio(0xb000_0000, 4, None), 0x29c0_8086);
    assert_eq!(bench.machine.ecam(), Some(0xb000_0000..0xc000_0000));
    // It moves itself through itself.
    bench.mmio(0xb000_0060, 4, Some(0xe000_0001));
    assert_eq!(bench.mmio(0xb000_0000, 4, None), 0xffff_ffff);
    assert_eq!(bench.mmio(0xe000_0000, 4, None), 0x29c0_8086);
    bench.devices.apply(bench.machine.reset());
    assert_eq!((bench.machine.ecam(), bench.mmio(0xe000_0000, 4, None)), (None, 0xffff_ffff));
}

/// A guest moves ECAM away and a BAR to where it was, then resets the machine.
#[test]
fn after_a_reset_ecam_is_back_whatever_was_put_there() {
    let bench = bench(false);
    bench.out(bench.select(0, 0x60), 4, 0xb000_0001);
    bench.set(0x10, 4, 0xe000_0000);
    bench.set(4, 2, 2);
    assert_eq!(bench.mmio(ECAM.start, 4, None), 0x100_0000);
    bench.devices.apply(bench.machine.reset());
    assert_eq!(bench.machine.ecam(), Some(ECAM));
    assert_eq!(bench.mmio(ECAM.start, 4, None), 0x29c0_8086);
}

#[test]
fn after_a_reset_no_register_is_selected() {
    let bench = bench(true);
    bench.select(NUMBER, 0x40);
    bench.out(0xcf9, 1, 2);
    bench.devices.apply(bench.machine.reset());
    assert_eq!((bench.port(0xcf8, 4), bench.port(0xcf9, 1)), (0, 0));
    assert_eq!(bench.port(0xcfc, 4), 0xffff_ffff);
}

#[test]
fn without_firmware_every_bar_has_an_address() {
    let bench = bench(false);
    bench.machine.bus.assign(PCI_WINDOW);
    bench.set(4, 2, 3);
    let low = bench.config(0x10, 4);
    assert!(PCI_WINDOW.contains(&low) && low.is_multiple_of(0x4000));
    assert_eq!(bench.mmio(low, 4, None), 0x100_0000);
    let ports = bench.config(0x18, 4) & !3;
    assert_eq!(bench.port(u16::try_from(ports).unwrap(), 4), 0x200_0000);
    // 8 GiB do not fit below 4 GiB.
    assert_eq!((bench.config(0x20, 4), bench.config(0x24, 4)), (4, 0));
    bench.devices.apply(bench.machine.reset());
    assert_eq!((bench.config(4, 2), bench.config(0x10, 4)), (0, low));
    assert_eq!(bench.mmio(low, 4, None), 0xffff_ffff);
}

#[test]
fn the_pin_follows_the_device_unless_it_is_forbidden() {
    let bench = bench(true);
    let level = |level| {
        let mut effects = Effects::new();
        bench.interrupts.set_level(level, &mut effects);
        bench.devices.apply(effects);
    };
    let line = interrupt_line(SLOT, 0);
    assert_eq!(bench.config(0x3d, 1), 1);
    level(true);
    assert_eq!(bench.config(6, 2), 0x18);
    assert_eq!(bench.config(4, 4), 0x18_0000);
    bench.set(4, 2, 0x400);
    assert_eq!(bench.config(6, 1), 0x18);
    bench.set(4, 2, 0);
    bench.set(bench.capability(0x11) + 2, 2, 0x8000);
    level(false);
    bench.set(bench.capability(0x11) + 2, 2, 0);
    assert_eq!(*bench.sink.1.lock(), [(line, true), (line, false), (line, true), (line, false)]);
}

#[test]
fn messages_wait_behind_masks() {
    let bench = bench(true);
    let at = bench.capability(0x11);
    assert_eq!(bench.config(at, 4) >> 16, 2);
    assert_eq!((bench.config(at + 4, 4), bench.config(at + 8, 4)), (1, 0x801));
    bench.set(0x14, 4, 0xd000_0000);
    bench.set(4, 2, 6);
    let table = |offset: u64, size, write| bench.mmio(0xd000_0000 + offset, size, write);
    let send = |vector| {
        let mut effects = Effects::new();
        bench.interrupts.send(vector, &mut effects);
        bench.devices.apply(effects);
        bench.messages()
    };
    table(16, 8, Some(0x1_fee0_0003));
    table(24, 4, Some(0x41));
    assert_eq!(table(16, 8, None), 0x1_fee0_0000);
    assert_eq!((table(28, 4, None), table(26, 2, None)), (1, 0));
    assert_eq!(send(1), []);
    assert_eq!(table(0x800, 8, None), 0);
    bench.set(at + 2, 2, 0x8000);
    assert_eq!((send(1), send(3), send(0xffff)), (Vec::new(), Vec::new(), Vec::new()));
    assert_eq!(table(0x800, 8, None), 2);
    table(0x800, 8, Some(0));
    assert_eq!(table(0x800, 4, None), 2);
    table(28, 4, Some(0));
    assert_eq!(bench.messages(), [(0x1_fee0_0000, 0x41)]);
    assert_eq!(table(0x800, 4, None), 0);
    assert_eq!(send(1), [(0x1_fee0_0000, 0x41)]);
    bench.set(at + 2, 2, 0xc000);
    assert_eq!(send(1), []);
    bench.set(at + 2, 2, 0x8000);
    assert_eq!(bench.messages(), [(0x1_fee0_0000, 0x41)]);
    bench.devices.apply(bench.machine.reset());
    assert_eq!((bench.config(at + 2, 2), send(1)), (2, Vec::new()));
}

#[test]
fn the_reset_register_resets_on_its_rising_bit() {
    let bench = bench(true);
    assert_eq!(bench.out(0xcf9, 1, 2), None);
    assert_eq!(bench.port(0xcf9, 1), 2);
    assert_eq!(bench.out(0xcf9, 1, 6), Some(Request::Reset));
    assert_eq!(bench.port(0xcf9, 1), 2);
    assert_eq!(bench.out(0xcf8, 4, 0x8000_0000), None);
}

#[derive(Debug, Clone)]
enum Step {
    Config(u8, u16, u8, Option<u32>),
    Ports(u16, u8, Option<u32>),
    Memory(u64, u8, Option<u64>),
    Send(u16),
    Level(bool),
    Reset,
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        Just(0xffff_ffff),
        Just(0xe000_0001),
        (0u32..8).prop_map(|n| n),
        prop::sample::select(&[0xd000_0000, 0xb000_0001, 0x0cf8, 0x8000_8000, 0xfec0_0000][..]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let number = prop_oneof![Just(0u8), Just(NUMBER), Just(0xf8), any::<u8>()];
    let size = prop::sample::select(&[1u8, 2, 4, 8, 3][..]);
    let register = prop_oneof![0u16..0x70, 0u16..0x100, any::<u16>()];
    let memory = prop_oneof![
        (0xd000_0000u64..0xd000_1000),
        (0xe000_0000u64..0xe010_0000),
        (0xb000_0000u64..0xb000_0100),
        any::<u64>()
    ];
    prop_oneof![
        8 => (number, register, size.clone(), prop::option::of(value()))
            .prop_map(|(n, r, s, v)| Step::Config(n, r, s, v)),
        2 => (0xcf0u16..0xd04, size.clone(), prop::option::of(value()))
            .prop_map(|(p, s, v)| Step::Ports(p, s, v)),
        4 => (memory, size, prop::option::of(any::<u64>()))
            .prop_map(|(a, s, v)| Step::Memory(a, s, v)),
        2 => any::<u16>().prop_map(|v| Step::Send(v % 5)),
        1 => any::<bool>().prop_map(Step::Level),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    /// Whatever a guest writes where: it is answered, identities stay, and the pin's rises and
    /// falls alternate.
    #[test]
    fn hostile_writes_change_only_what_is_writable(
        firmware in any::<bool>(),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let bench = bench(firmware);
        for step in steps {
            match step {
                Step::Config(number, register, size, Some(value)) => {
                    bench.out(bench.select(number, register), size, value);
                }
                Step::Config(number, register, size, None) => {
                    bench.port(bench.select(number, register), size);
                }
                Step::Ports(port, size, Some(value)) => { bench.out(port, size, value); }
                Step::Ports(port, size, None) => { bench.port(port, size); }
                Step::Memory(gpa, size, write) => { bench.mmio(gpa, size, write); }
                Step::Send(vector) => {
                    let mut effects = Effects::new();
                    bench.interrupts.send(vector, &mut effects);
                    bench.devices.apply(effects);
                }
                Step::Level(level) => {
                    let mut effects = Effects::new();
                    bench.interrupts.set_level(level, &mut effects);
                    bench.devices.apply(effects);
                }
                Step::Reset => { bench.devices.apply(bench.machine.reset()); }
            }
            prop_assert_eq!(bench.config(0, 4), 0x1042_1af4);
            prop_assert_eq!(bench.config(8, 4), 0x0100_0001);
            prop_assert_eq!(bench.config(0x34, 2) & 0xff, 0x40);
            prop_assert_eq!(bench.config(0x40, 2), 0x0011);
            let low = bench.config(0x10, 4);
            prop_assert_eq!(low & 0x3fff, 0);
            prop_assert_eq!(bench.config(0x18, 4) & 0xffff_001f, 1);
        }
        let pins = bench.sink.1.lock();
        prop_assert!(pins.iter().enumerate().all(|(i, (_, high))| *high == (i % 2 == 0)));
    }
}
