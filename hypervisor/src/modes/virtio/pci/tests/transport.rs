//! Structures, features, resets and hostile drivers, whatever the device.

use super::*;
use crate::device::Effects;
use crate::modes::virtio::{feature, status};
use proptest::prelude::*;

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

/// The command register's bit 2: a kernel that takes over from another one clears it first.
#[test]
fn without_bus_mastering_nothing_is_read_written_or_signalled() {
    let (device, bytes) = disk(false);
    let bench = bench(device);
    bench.start(feature::VERSION_1, 1);
    bench.messages();
    bench.config(4, 2, Some(2));
    bench.put(0x3_0000, &[b'x'; 512]);
    let (status, _) = bench.request(1, 0, &[(0x3_0000, 512, false)]);
    assert_eq!((status, bench.used(0).0), (0xee, 0));
    assert_eq!(bytes.lock()[..2], *b"00");
    assert!(bench.sent_messages().is_empty());
    // What was asked for meanwhile is done when the bit is set again.
    bench.config(4, 2, Some(6));
    assert_eq!((bench.get::<1>(0x2_0010)[0], bench.used(0).0), (0, 1));
    assert_eq!(bytes.lock()[..2], *b"xx");
    assert_eq!(bench.sent_messages(), [0x41]);
}

#[test]
fn a_message_without_bus_mastering_stays_pending() {
    let bench = bench(disk(false).0);
    bench.messages();
    bench.config(4, 2, Some(2));
    let mut effects = Effects::new();
    bench.transport.interrupts().send(2, &mut effects);
    bench.devices.apply(effects);
    assert!(bench.sent_messages().is_empty());
    assert_eq!(bench.mmio(TABLE + 0x800, 4, None), 1 << 2);
    bench.config(4, 2, Some(6));
    assert_eq!(bench.sent_messages(), [0x42]);
}

#[test]
fn without_memory_space_no_bar_answers_and_without_intx_no_pin_is_driven() {
    let bench = bench(disk(false).0);
    bench.start(feature::VERSION_1, 1);
    assert_eq!(bench.status(), 15);
    bench.config(4, 2, Some(4));
    assert_eq!(bench.status(), 0xff);
    bench.config(4, 2, Some(6 | 1 << 10));
    let (status, _) = bench.request(8, 0, &[(0x3_0000, 20, true)]);
    assert_eq!((status, bench.status()), (0, 15));
    assert_eq!(bench.config(6, 2, None) & 8, 8, "it is wanted");
    assert!(bench.sink.1.lock().is_empty(), "and not driven");
    bench.config(4, 2, Some(6));
    assert_eq!(*bench.sink.1.lock(), [true]);
}
