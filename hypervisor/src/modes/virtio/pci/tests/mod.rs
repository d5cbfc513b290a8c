//! Devices driven as a driver drives them: through configuration space, BARs and queues.

mod devices;
mod transport;

use super::*;
use crate::device::{Bus, Devices, InterruptSink, Lines, MsiMessage, Trigger, Unclaimed};
use crate::host::{BlockStore, HostError, HostErrorKind, NetPort};
use crate::memory::{Gpa, GuestSlice};
use crate::modes::hvt::fixture::{Ram, ram};
use crate::modes::type1::pci::{Machine, attach};
use crate::modes::virtio::blk::Blk;
use crate::modes::virtio::net::Net;
use crate::vcpu::{VmEntry, VmExit};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;

const SLOT: u8 = 2;
const NUMBER: u8 = SLOT << 3;
const BAR: u64 = 0xd000_0000;
const TABLE: u64 = 0xd001_0000;
const END: u64 = 0x4_0000;
const SIZE: u16 = 16;

#[derive(Default)]
struct Sink(Mutex<Vec<u32>>, Mutex<Vec<bool>>);

impl InterruptSink for Sink {
    fn set_line(&self, _: u32, asserted: bool) {
        self.1.lock().push(asserted);
    }
    fn pulse(&self, _: u32) {}
    fn msi(&self, message: MsiMessage) {
        self.0.lock().push(message.data);
    }
}

/// Eight sectors; the second refuses.
struct Disk(Arc<Mutex<Vec<u8>>>);

impl Disk {
    fn range(offset: u64, len: usize) -> Result<core::ops::Range<usize>, HostError> {
        let start = usize::try_from(offset).unwrap();
        assert!(start + len <= 4096, "beyond the disk");
        if start < 1024 && start + len > 512 {
            return Err(HostError::new(HostErrorKind::Io, "bad sector"));
        }
        Ok(start..start + len)
    }
}

impl BlockStore for Disk {
    fn capacity(&self) -> u64 {
        4096 + 100
    }
    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<(), HostError> {
        to.copy_from(&self.0.lock()[Self::range(offset, to.len())?]);
        Ok(())
    }
    fn write_at(&self, offset: u64, from: GuestSlice<'_>) -> Result<(), HostError> {
        from.copy_to(&mut self.0.lock()[Self::range(offset, from.len())?]);
        Ok(())
    }
    fn flush(&self) -> Result<(), HostError> {
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Wire {
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    arrived: Arc<Mutex<VecDeque<Vec<u8>>>>,
}

impl NetPort for Wire {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 7]
    }
    fn mtu(&self) -> u16 {
        1500
    }
    fn send(&self, frame: GuestSlice<'_>) -> Result<(), HostError> {
        let mut bytes = vec![0; frame.len()];
        frame.copy_to(&mut bytes);
        self.sent.lock().push(bytes);
        Ok(())
    }
    fn receive(&self, to: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
        Ok(self.arrived.lock().pop_front().map(|frame| to.copy_from(&frame)))
    }
}

struct Bench {
    devices: Devices,
    machine: Machine,
    sink: Arc<Sink>,
    ram: Ram,
    transport: Arc<Transport>,
    /// Chains that each queue was given.
    given: Mutex<[u16; 2]>,
}

fn bench(device: Arc<dyn VirtioDevice>) -> Bench {
    let sink = Arc::new(Sink::default());
    let bus = || Bus::new(Unclaimed::Ones);
    let devices = Devices::new(bus(), bus(), Lines::new(sink.clone()));
    let machine = attach(&devices, true).unwrap();
    let pin = devices.lines.source(16, Trigger::Level);
    let interrupts = Arc::new(Interrupts::new(u32::from(NUMBER), Some(pin), 3));
    let ram = ram(0..END);
    let (function, transport) = function(device, Arc::new(ram.memory.clone()), interrupts);
    machine.bus.insert(SLOT, function);
    let given = Mutex::new([0; 2]);
    let bench = Bench { devices, machine, sink, ram, transport, given };
    bench.config(0x10, 4, Some(u32::try_from(BAR).unwrap()));
    bench.config(0x14, 4, Some(u32::try_from(TABLE).unwrap()));
    bench.config(4, 2, Some(6));
    bench
}

fn disk(read_only: bool) -> (Arc<dyn VirtioDevice>, Arc<Mutex<Vec<u8>>>) {
    let bytes = Arc::new(Mutex::new((b'0'..b'8').flat_map(|digit| [digit; 512]).collect()));
    let blk =
        Blk::new(Box::new(Disk(bytes.clone())), read_only, *b"disk 0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    (Arc::new(blk), bytes)
}

/// Where the tests put a queue.
fn at(queue: u16) -> (u64, u64, u64) {
    let base = 0x1000 + u64::from(queue) * 0x3000;
    (base, base + 0x1000, base + 0x2000)
}

impl Bench {
    fn mmio(&self, gpa: u64, size: u8, write: Option<u64>) -> u64 {
        let exit = VmExit::Mmio { gpa: Gpa(gpa), size, write };
        match self.devices.answer(&exit).unwrap().entry {
            Some(VmEntry::Data(data)) => data,
            _ => 0,
        }
    }

    fn config(&self, register: u16, size: u8, write: Option<u32>) -> u64 {
        let address = 1 << 31 | u32::from(NUMBER) << 8 | u32::from(register & 0xfc);
        let port = |port, size, write| {
            let exit = VmExit::Io { port, size, write };
            match self.devices.answer(&exit).unwrap().entry {
                Some(VmEntry::Data(data)) => data,
                _ => 0,
            }
        };
        port(0xcf8, 4, Some(address));
        port(0xcfc + (register & 3), size, write)
    }

    fn status(&self) -> u8 {
        u8::try_from(self.mmio(BAR + 0x14, 1, None)).unwrap()
    }

    fn set_status(&self, value: u8) -> u8 {
        self.mmio(BAR + 0x14, 1, Some(value.into()));
        self.status()
    }

    /// Up to FEATURES_OK.
    fn negotiate(&self, features: u64) -> u8 {
        self.set_status(0);
        self.set_status(3);
        for half in [0, 1] {
            self.mmio(BAR + 8, 4, Some(half));
            self.mmio(BAR + 0xc, 4, Some(features >> (32 * half) & 0xffff_ffff));
        }
        self.set_status(11)
    }

    fn set_queue(&self, queue: u16) {
        let (descriptors, available, used) = at(queue);
        self.mmio(BAR + 0x16, 2, Some(queue.into()));
        self.mmio(BAR + 0x18, 2, Some(SIZE.into()));
        self.mmio(BAR + 0x1a, 2, Some(u64::from(queue) + 1));
        self.mmio(BAR + 0x20, 8, Some(descriptors));
        self.mmio(BAR + 0x28, 4, Some(available));
        self.mmio(BAR + 0x2c, 4, Some(0));
        self.mmio(BAR + 0x30, 8, Some(used));
        self.mmio(BAR + 0x1c, 2, Some(1));
    }

    fn start(&self, features: u64, queues: u16) {
        assert_eq!(self.negotiate(features), 11);
        (0..queues).for_each(|queue| self.set_queue(queue));
        assert_eq!(self.set_status(15), 15);
    }

    fn messages(&self) {
        for vector in 0..3 {
            self.mmio(TABLE + vector * 16, 8, Some(0xfee0_0000));
            self.mmio(TABLE + vector * 16 + 8, 4, Some(0x40 + vector));
            self.mmio(TABLE + vector * 16 + 12, 4, Some(0));
        }
        self.config(0x42, 2, Some(0x8000));
    }

    fn sent_messages(&self) -> Vec<u32> {
        core::mem::take(&mut *self.sink.0.lock())
    }

    /// Makes a chain of these buffers available; addresses, lengths, writable.
    fn give(&self, queue: u16, buffers: &[(u64, u32, bool)]) {
        let (descriptors, available, _) = at(queue);
        for (i, (address, len, writable)) in buffers.iter().enumerate() {
            let next = u16::from(i + 1 < buffers.len()) | u16::from(*writable) << 1;
            let desc = descriptors + i as u64 * 16;
            self.put(desc, &address.to_le_bytes());
            self.put(desc + 8, &len.to_le_bytes());
            self.put(desc + 12, &next.to_le_bytes());
            self.put(desc + 14, &u16::try_from(i + 1).unwrap().to_le_bytes());
        }
        let given = &mut self.given.lock()[usize::from(queue)];
        self.put(available + 4 + 2 * u64::from(*given % SIZE), &[0, 0]);
        *given += 1;
        self.put(available + 2, &given.to_le_bytes());
    }

    fn notify(&self, queue: u16) {
        self.mmio(BAR + 0x3000 + u64::from(queue) * 4, 2, Some(queue.into()));
    }

    /// How many chains came back, and how much the last one wrote.
    fn used(&self, queue: u16) -> (u16, u32) {
        let used = at(queue).2;
        let index: u16 = self.ram.memory.read_obj(Gpa(used + 2)).unwrap();
        let last = u64::from(index.wrapping_sub(1) % SIZE);
        (index, self.ram.memory.read_obj(Gpa(used + 4 + last * 8 + 4)).unwrap())
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.ram.memory.write_bytes(Gpa(at), bytes).unwrap();
    }

    fn get<const N: usize>(&self, at: u64) -> [u8; N] {
        self.ram.memory.read_obj(Gpa(at)).unwrap()
    }

    /// One block request; its status and how much was written.
    fn request(&self, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
        self.put(0x2_0000, &kind.to_le_bytes());
        self.put(0x2_0008, &sector.to_le_bytes());
        self.put(0x2_0010, &[0xee]);
        let mut buffers = vec![(0x2_0000, 16, false)];
        buffers.extend_from_slice(data);
        buffers.push((0x2_0010, 1, true));
        self.give(0, &buffers);
        self.notify(0);
        (self.get::<1>(0x2_0010)[0], self.used(0).1)
    }
}
