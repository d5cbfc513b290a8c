//! A hostile driver: PCI, virtio's registers, and queues anywhere in memory that changes between
//! accesses. Hosts get only ranges that fit, closed memory stays as it was, and a reset always
//! brings the device back.

#![no_main]

use arbitrary::Arbitrary;
use fuzz::host;
use fuzz::ram::Ram;
use fuzz::values::Word;
use hypervisor::device::{Bus, Devices, InterruptSink, Lines, MsiMessage, Trigger, Unclaimed};
use hypervisor::memory::{Gpa, Perms};
use hypervisor::modes::type1::pci::{Interrupts, attach};
use hypervisor::modes::virtio::VirtioDevice;
use hypervisor::modes::virtio::blk::Blk;
use hypervisor::modes::virtio::net::Net;
use hypervisor::modes::virtio::pci::function;
use hypervisor::vcpu::VmExit;
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

const END: u64 = 0x1_0000;
const CLOSED: std::ops::Range<u64> = 0xe000..0xf000;
const BAR: u32 = 0xd000_0000;
const TABLE: u32 = 0xd001_0000;

#[derive(Debug, Arbitrary)]
enum Step {
    Memory { at: u16, value: Word },
    Descriptor { at: u16, address: Word, len: Word, flags: u16, next: u16 },
    Config { register: u8, size: u8, value: Word },
    Bar { offset: u16, size: u8, value: Word },
    Read { offset: u16, size: u8 },
    Notify(u8),
    Poll,
}

#[derive(Debug, Arbitrary)]
struct Input {
    net: bool,
    indirect: bool,
    event_index: bool,
    steps: Vec<Step>,
}

struct Sink;

impl InterruptSink for Sink {
    fn set_line(&self, _: u32, _: bool) {}
    fn pulse(&self, _: u32) {}
    fn msi(&self, _: MsiMessage) {}
}

fuzz_target!(|input: Input| {
    let bus = || Bus::new(Unclaimed::Ones);
    let devices = Devices::new(bus(), bus(), Lines::new(Arc::new(Sink)));
    let machine = attach(&devices, true).expect("an empty board");
    let pin = devices.lines.source(16, Trigger::Level);
    let interrupts = Arc::new(Interrupts::new(8, Some(pin), 3));
    let mut ram = Ram::new(0..END);
    ram.close(CLOSED, 0x77, Perms::READ);
    let device: Arc<dyn VirtioDevice> = if input.net {
        Arc::new(Net::new(host::net()))
    } else {
        Arc::new(Blk::new(host::disk(), false, *b"a disk for fuzzing  "))
    };
    let (function, transport) = function(device, Arc::new(ram.memory.clone()), interrupts);
    machine.bus.insert(1, function);
    let config = |register: u32, size, value| {
        devices.answer(&VmExit::Io {
            port: 0xcf8,
            size: 4,
            write: Some(0x8000_0800 | register & 0xfc),
        });
        let port = 0xcfc + (register & 3) as u16;
        devices.answer(&VmExit::Io { port, size, write: Some(value) });
    };
    let mmio = |gpa: u64, size: u8, write| {
        devices.answer(&VmExit::Mmio { gpa: Gpa(gpa), size, write });
    };
    let bar = |offset: u64, size, value| mmio(u64::from(BAR) + offset, size, Some(value));
    let map = || {
        config(0x10, 4, BAR);
        config(0x14, 4, TABLE);
        config(4, 2, 6);
    };
    map();
    let features = u64::from(input.indirect) << 28 | u64::from(input.event_index) << 29 | 1 << 32;
    bar(0x14, 1, 3);
    for half in [0, 1] {
        bar(8, 4, half);
        bar(0xc, 4, features >> (32 * half) & 0xffff_ffff);
    }
    bar(0x14, 1, 11);
    for queue in [0, 1] {
        bar(0x16, 2, queue);
        bar(0x18, 2, 8);
        for (place, at) in [(0x20, 0), (0x28, 0x400), (0x30, 0x800)] {
            bar(place, 8, queue * 0x1000 + at);
        }
        bar(0x1c, 2, 1);
    }
    bar(0x14, 1, 15);
    for step in input.steps {
        match step {
            Step::Memory { at, value } => {
                let value = value.get(0, END) as u16;
                let _ = ram.memory.write_obj(Gpa(u64::from(at) % 0x2000), &value);
            }
            Step::Descriptor { at, address, len, flags, next } => {
                let at = u64::from(at % 16) * 16 + u64::from(at & 1) * 0x1000;
                let _ = ram.memory.write_obj(Gpa(at), &address.get(0, END));
                let _ = ram.memory.write_obj(Gpa(at + 8), &(len.get(0, END) as u32));
                let _ = ram.memory.write_obj(Gpa(at + 12), &[flags & 7, next % 10]);
            }
            Step::Config { register, size, value } => {
                config(register.into(), size, value.get(0, END) as u32);
            }
            Step::Bar { offset, size, value } => {
                bar(u64::from(offset) & 0x4fff, size, value.get(0, END));
            }
            Step::Read { offset, size } => mmio(u64::from(BAR) + u64::from(offset), size, None),
            Step::Notify(queue) => bar(0x3000 + u64::from(queue % 3) * 4, 2, 0),
            Step::Poll => {
                devices.apply(transport.poll(0));
            }
        }
        devices.work();
    }
    assert!(ram.is_filled(CLOSED, 0x77));
    devices.apply(machine.reset());
    map();
    let status = VmExit::Mmio { gpa: Gpa(u64::from(BAR) + 0x14), size: 1, write: None };
    let answer = devices.answer(&status).expect("an access to a device");
    assert_eq!(answer.entry, Some(hypervisor::vcpu::VmEntry::Data(0)));
});
