//! Devices driven as a driver drives them: through configuration space, BARs and queues.

use super::*;
use crate::device::{Bus, Devices, Effects, InterruptSink, Lines, MsiMessage, Trigger, Unclaimed};
use crate::host::{BlockStore, HostError, HostErrorKind, NetPort};
use crate::memory::{Gpa, GuestSlice};
use crate::modes::hvt::fixture::{Ram, ram};
use crate::modes::type1::pci::{Machine, attach};
use crate::modes::virtio::blk::Blk;
use crate::modes::virtio::net::Net;
use crate::modes::virtio::{feature, status};
use crate::vcpu::{VmEntry, VmExit};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use proptest::prelude::*;

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

#[test]
fn a_driver_finds_the_structures_by_their_capabilities() {
    let bench = bench(disk(false).0);
    assert_eq!(bench.config(0, 4, None), 0x1042_1af4);
    let (mut at, mut found) = (bench.config(0x34, 1, None), Vec::new());
    while at != 0 {
        let register = u16::try_from(at).unwrap();
        let word = |offset| bench.config(register + offset, 4, None);
        if word(0) & 0xff == 9 {
            found.push((word(0) >> 24, word(4) & 0xff, word(8), word(12), word(0) >> 16 & 0xff));
        }
        at = word(0) >> 8 & 0xff;
    }
    assert_eq!(
        found,
        [
            (1, 0, 0, 0x38, 16),
            (2, 0, 0x3000, 0x1000, 20),
            (3, 0, 0x1000, 1, 16),
            (4, 0, 0x2000, 0x1000, 16),
            (5, 0, 0, 0, 20)
        ]
    );
}

#[test]
fn features_are_agreed_on_or_not() {
    let bench = bench(disk(true).0);
    let offered = |half| {
        bench.mmio(BAR, 4, Some(half));
        bench.mmio(BAR + 4, 4, None)
    };
    assert_eq!((offered(0), offered(1), offered(2)), (0x3000_0266, 1, 0));
    assert_eq!(bench.negotiate(feature::VERSION_1), 11);
    assert_eq!(bench.negotiate(0), 3);
    assert_eq!(bench.negotiate(feature::VERSION_1 | 1 << 63), 3);
    assert_eq!(bench.set_status(0), 0);
    // No queue before the features are agreed on.
    bench.set_queue(0);
    assert_eq!(bench.mmio(BAR + 0x1c, 2, None), 0);
    assert_eq!(bench.mmio(BAR + 0x12, 2, None), 1);
    bench.mmio(BAR + 0x16, 2, Some(1));
    assert_eq!(bench.mmio(BAR + 0x18, 2, None), 0);
}

#[test]
fn a_disk_reads_writes_flushes_and_says_its_name() {
    let (device, bytes) = disk(false);
    let bench = bench(device);
    assert_eq!(bench.mmio(BAR + 0x2000, 8, None), 8);
    assert_eq!(bench.mmio(BAR + 0x2014, 4, None), 512);
    bench.start(feature::VERSION_1, 1);
    bench.messages();
    let data = 0x3_0000;
    assert_eq!(bench.request(0, 2, &[(data, 512, true), (data + 0x800, 512, true)]), (0, 1025));
    assert_eq!((bench.get::<2>(data), bench.get::<2>(data + 0x800)), (*b"22", *b"33"));
    assert_eq!(bench.sent_messages(), [0x41]);
    bench.put(data, &[b'x'; 1024]);
    assert_eq!(bench.request(1, 6, &[(data, 100, false), (data + 100, 924, false)]), (0, 1));
    assert_eq!(bytes.lock()[6 * 512..], [b'x'; 1024]);
    assert_eq!(bench.request(4, 0, &[]), (0, 1));
    assert_eq!(bench.request(8, 0, &[(data, 20, true)]), (0, 21));
    assert_eq!(&bench.get::<7>(data), b"disk 0\0");
    // Beyond the end, in the middle of a sector, a bad sector, an unknown request, no memory.
    assert_eq!(bench.request(0, 7, &[(data, 1024, true)]).0, 1);
    assert_eq!(bench.request(0, u64::MAX, &[(data, 512, true)]).0, 1);
    assert_eq!(bench.request(0, 1 << 55, &[(data, 512, true)]).0, 1);
    assert_eq!(bench.request(0, 0, &[(data, 100, true)]).0, 1);
    assert_eq!(bench.request(0, 1, &[(data, 512, true)]).0, 1);
    assert_eq!(bench.request(1, 1, &[(data, 512, false)]).0, 1);
    assert_eq!(bench.request(99, 0, &[]).0, 2);
    assert_eq!(bench.request(0, 0, &[(END - 100, 512, true)]).0, 1);
    assert_eq!((bench.used(0).0, bench.status()), (12, 15));
}

#[test]
fn a_read_only_disk_refuses_writes() {
    let (device, bytes) = disk(true);
    let bench = bench(device);
    bench.start(feature::VERSION_1, 1);
    assert_eq!(bench.request(1, 0, &[(0x3_0000, 512, false)]).0, 1);
    assert_eq!(bytes.lock()[0], b'0');
    // The pin stays up until the status is read.
    assert_eq!(bench.mmio(BAR + 0x1000, 1, None), 1);
    assert_eq!(bench.mmio(BAR + 0x1000, 1, None), 0);
    assert_eq!(*bench.sink.1.lock(), [true, false]);
}

#[derive(Debug, Default)]
struct Log(Mutex<alloc::string::String>);

impl crate::host::Notices for Log {
    fn notice(&self, text: core::fmt::Arguments<'_>) {
        *self.0.lock() += &alloc::format!("{text}\n");
    }
}

#[test]
fn a_broken_queue_needs_a_reset_and_gets_it() {
    let bench = bench(disk(false).0);
    let log = Arc::new(Log::default());
    bench.transport.report_to("disk", log.clone());
    bench.start(feature::VERSION_1 | feature::EVENT_IDX, 1);
    bench.mmio(BAR + 0x10, 2, Some(0));
    bench.messages();
    bench.give(0, &[(0x2_0000, 8, false), (0x2_0010, 1, true)]);
    bench.notify(0);
    assert_eq!(bench.status(), 15 | status::NEEDS_RESET);
    assert_eq!(bench.sent_messages(), [0x40]);
    bench.notify(0);
    assert_eq!(bench.used(0).0, 0);
    while bench.devices.has_work() {
        bench.devices.work();
    }
    let told = "disk: the guest's driver has broken a queue: a request without its header";
    assert!(log.0.lock().starts_with(told) && log.0.lock().lines().count() == 1, "{log:?}");
    assert_eq!(bench.set_status(0), 0);
    *bench.given.lock() = [0; 2];
    bench.put(at(0).1, &[0; 64]);
    bench.start(feature::VERSION_1, 1);
    assert_eq!(bench.request(4, 0, &[]).0, 0);
    bench.devices.apply(bench.machine.reset());
    bench.config(4, 2, Some(6));
    bench.config(0x10, 4, Some(u32::try_from(BAR).unwrap()));
    assert_eq!(bench.status(), 0);
}

#[test]
fn frames_go_out_and_come_in() {
    let wire = Wire::default();
    let bench = bench(Arc::new(Net::new(Box::new(wire.clone()))));
    assert_eq!(bench.mmio(BAR + 0x2000, 4, None), 2);
    assert_eq!(bench.mmio(BAR + 0x200a, 2, None), 1500);
    bench.start(feature::VERSION_1, 2);
    bench.messages();
    bench.put(0x2_000c, b"a frame to send");
    bench.give(1, &[(0x2_0000, 12, false), (0x2_000c, 15, false)]);
    bench.notify(1);
    bench.give(1, &[(0x2_0000, 14, false), (0x2_000e, 4, false), (0x2_0000, 2, false)]);
    bench.notify(1);
    bench.give(1, &[(0x2_0000, 2000, false)]);
    bench.notify(1);
    assert_eq!(*wire.sent.lock(), [b"a frame to send".to_vec(), b"a fram\0\0".to_vec()]);
    assert_eq!(bench.sent_messages(), [0x42; 3]);
    // Nothing has arrived: the buffer waits.
    bench.give(0, &[(0x3_0000, 100, true)]);
    bench.notify(0);
    assert_eq!((bench.used(0).0, bench.sent_messages()), (0, vec![]));
    wire.arrived.lock().push_back(b"hello".to_vec());
    bench.devices.apply(bench.transport.poll(0));
    assert_eq!((bench.used(0), bench.sent_messages()), ((1, 17), vec![0x41]));
    assert_eq!(&bench.get::<17>(0x3_0000), b"\0\0\0\0\0\0\0\0\0\0\x01\0hello");
    // What arrived before there was a buffer, in pieces.
    wire.arrived.lock().push_back(b"in many pieces".to_vec());
    bench.devices.apply(bench.transport.poll(0));
    bench.give(0, &[(0x3_1000, 5, true), (0x3_2000, 10, true), (0x3_3000, 50, true)]);
    bench.notify(0);
    assert_eq!(bench.used(0), (2, 26));
    assert_eq!((&bench.get::<3>(0x3_2007), &bench.get::<11>(0x3_3000)), (b"in ", b"many pieces"));
}

/// A device in whose work a driver resets it.
struct Slow(Mutex<Option<Arc<Mutex<Registers>>>>);

impl VirtioDevice for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }
    fn id(&self) -> u16 {
        63
    }
    fn class(&self) -> [u8; 3] {
        [0xff, 0, 0]
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_sizes(&self) -> &[u16] {
        &[SIZE]
    }
    fn read_config(&self, _: usize, _: &mut [u8]) {}
    fn process(
        &self,
        _: usize,
        queue: &mut crate::modes::virtio::queue::Queue,
        context: &crate::modes::virtio::Context<'_>,
    ) -> Result<bool, crate::modes::virtio::queue::QueueError> {
        use crate::device::{Access, Device, Width};
        let registers = self.0.lock().clone();
        if let Some(registers) = registers {
            let status = Access { offset: 0x14, width: Width::Byte };
            let mut effects = Effects::new();
            registers.lock().write(status, 0, &mut effects);
            assert_eq!(registers.lock().read(status, &mut effects), 15);
        }
        queue.serve(context.memory, |_| Ok(Some(0)))
    }
}

#[test]
fn a_reset_is_complete_when_the_work_is() {
    let slow = Arc::new(Slow(Mutex::new(None)));
    let bench = bench(slow.clone());
    bench.start(feature::VERSION_1, 1);
    *slow.0.lock() = Some(Arc::new(Mutex::new(Registers::new(bench.transport.clone()))));
    bench.give(0, &[(0x2_0000, 1, false)]);
    bench.notify(0);
    assert_eq!((bench.status(), bench.sink.1.lock().len()), (0, 0));
    bench.notify(0);
}

#[test]
fn the_bar_is_seen_through_configuration_space() {
    let bench = bench(disk(false).0);
    let mut at = bench.config(0x34, 1, None);
    let window = loop {
        let register = u16::try_from(at).unwrap();
        if bench.config(register + 3, 1, None) == 5 && bench.config(register, 1, None) == 9 {
            break register;
        }
        at = bench.config(register + 1, 1, None);
    };
    let access = |offset, length, write| {
        bench.config(window + 8, 4, Some(offset));
        bench.config(window + 12, 4, Some(length));
        bench.config(window + 16, 4, write)
    };
    access(0x14, 1, Some(3));
    assert_eq!((bench.status(), access(0x14, 1, None) & 0xff), (3, 3));
    assert_eq!(access(0x2014, 4, None), 512);
    access(0xffff_fffc, 4, Some(1));
    access(0x3ffd, 4, Some(1));
    bench.config(window + 4, 1, Some(3));
    access(0x14, 1, Some(0));
    assert_eq!(bench.status(), 3);
}

proptest! {
    /// Whatever a driver writes to the structures and into its memory.
    #[test]
    fn hostile_drivers_are_borne(
        net in any::<bool>(),
        memory in prop::collection::vec((0u64..0x9000, any::<u16>()), 0..200),
        steps in prop::collection::vec(
            (prop_oneof![0u64..0x40, 0x3000u64..0x3010, 0u64..0x4000], 0usize..4,
             prop::option::of(prop_oneof![0u64..16, Just(0x1000), any::<u64>()])), 0..60),
    ) {
        let device: Arc<dyn VirtioDevice> =
            if net { Arc::new(Net::new(Box::new(Wire::default()))) } else { disk(false).0 };
        let bench = bench(device);
        bench.start(feature::VERSION_1 | feature::INDIRECT_DESC, if net { 2 } else { 1 });
        for (at, value) in memory {
            bench.put(0x1000 + at, &value.to_le_bytes());
        }
        bench.notify(0);
        bench.notify(1);
        for (offset, size, write) in steps {
            bench.mmio(BAR + offset, 1 << size, write);
            bench.devices.work();
            bench.devices.apply(bench.transport.poll(0));
        }
        prop_assert_eq!(bench.set_status(0), 0);
    }
}
