//! Queues against the `virtio-queue` crate, and what it lets pass.

use super::*;
use crate::modes::hvt::fixture::{Ram, ram};
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use virtio_queue::{Queue as TheirQueue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const SIZE: u16 = 8;
const END: u64 = 0x1_0000;
const LAYOUT: Layout = Layout { size: SIZE, descriptors: 0x1000, available: 0x2000, used: 0x3000 };
const INDIRECT: u64 = 0x4000;

#[derive(Debug, Clone, Copy)]
struct Desc(u64, u32, u16, u16);

impl Desc {
    fn bytes(self) -> Vec<u8> {
        let Self(address, len, flags, next) = self;
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&next.to_le_bytes());
        bytes
    }
}

/// The same bytes for both.
struct Both {
    ours: Ram,
    theirs: GuestMemoryMmap,
}

impl Both {
    fn new() -> Self {
        let range = (GuestAddress(0), usize::try_from(END).unwrap());
        Self { ours: ram(0..END), theirs: GuestMemoryMmap::from_ranges(&[range]).unwrap() }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.ours.memory.write_bytes(Gpa(at), bytes).unwrap();
        self.theirs.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn table(&self, at: u64, table: &[Desc]) {
        for (i, desc) in table.iter().enumerate() {
            self.put(at + i as u64 * 16, &desc.bytes());
        }
    }

    fn available(&self, index: u16, heads: &[u16]) {
        for (i, head) in heads.iter().enumerate() {
            self.put(LAYOUT.available + 4 + i as u64 * 2, &head.to_le_bytes());
        }
        self.put(LAYOUT.available + 2, &index.to_le_bytes());
    }

    fn same(&self, at: u64, len: usize) -> bool {
        let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
        self.ours.memory.read_bytes(Gpa(at), &mut ours).unwrap();
        self.theirs.read_slice(&mut theirs, GuestAddress(at)).unwrap();
        ours == theirs
    }

    fn queue(&self, event_index: bool) -> Queue {
        Queue::new(LAYOUT, &self.ours.memory, event_index, true).unwrap()
    }
}

fn their_queue(event_index: bool) -> TheirQueue {
    let mut queue = TheirQueue::new(SIZE).unwrap();
    queue.set_desc_table_address(Some(0x1000), Some(0));
    queue.set_avail_ring_address(Some(0x2000), Some(0));
    queue.set_used_ring_address(Some(0x3000), Some(0));
    queue.set_event_idx(event_index);
    queue.set_ready(true);
    queue
}

fn listed(chain: &Chain) -> Vec<(u64, u32, bool)> {
    let list = |buffers: &Buffers, writable| {
        buffers.segments().iter().map(|s| (s.at.0, s.len, writable)).collect::<Vec<_>>()
    };
    [list(&chain.readable, false), list(&chain.writable, true)].concat()
}

fn desc() -> impl Strategy<Value = Desc> {
    let address =
        prop::sample::select(&[INDIRECT, INDIRECT + 16, 0x8000, 0x9001, END - 4, 1 << 40][..]);
    let len = prop::sample::select(&[0u32, 4, 16, 32, 64, 100, 0xffff_ffff][..]);
    let flags = prop_oneof![6 => 0u16..4, 1 => Just(4u16), 1 => 0u16..8];
    (address, len, flags, 0u16..10).prop_map(|(a, l, f, n)| Desc(a, l, f, n))
}

proptest! {
    #[test]
    fn chains_are_those_of_another_implementation(
        table in prop::collection::vec(desc(), usize::from(SIZE)),
        indirect in prop::collection::vec(desc(), 6),
        heads in prop::collection::vec(0u16..10, usize::from(SIZE)),
        index in 0u16..=SIZE,
    ) {
        let both = Both::new();
        both.table(LAYOUT.descriptors, &table);
        both.table(INDIRECT, &indirect);
        both.available(index, &heads);
        let (mut ours, mut theirs) = (both.queue(false), their_queue(false));
        let mut chain = Chain::default();
        loop {
            let expected = theirs.pop_descriptor_chain(&both.theirs);
            match ours.pop(&both.ours.memory, &mut chain) {
                Ok(true) => {
                    let expected = expected.unwrap();
                    prop_assert_eq!(expected.head_index(), chain.head());
                    let expected: Vec<_> = expected
                        .filter(|desc| desc.len() > 0)
                        .map(|desc| (desc.addr().0, desc.len(), desc.is_write_only()))
                        .collect();
                    prop_assert_eq!(listed(&chain), expected);
                    let written = chain.writable.len();
                    ours.push(&both.ours.memory, chain.head(), written).unwrap();
                    theirs.add_used(&both.theirs, chain.head(), written).unwrap();
                }
                Ok(false) => { prop_assert!(expected.is_none()); break; }
                // What is refused here stops there in the middle or is given to the device.
                Err(error) => { prop_assert!(!error.to_string().is_empty()); break; }
            }
        }
        prop_assert!(both.same(LAYOUT.used, 6 + 8 * usize::from(SIZE)));
    }

    #[test]
    fn the_driver_is_told_when_another_implementation_tells_it(
        steps in prop::collection::vec((0u16..12, any::<u16>(), any::<bool>()), 1..40),
    ) {
        let both = Both::new();
        both.table(LAYOUT.descriptors, &[Desc(0x8000, 4, 0, 0)]);
        let (mut ours, mut theirs) = (both.queue(true), their_queue(true));
        let mut used = 0u16;
        for (count, event, near) in steps {
            let event = if near { used.wrapping_add(event % 8).wrapping_sub(2) } else { event };
            both.put(LAYOUT.available + 4 + 2 * u64::from(SIZE), &event.to_le_bytes());
            for _ in 0..count {
                ours.push(&both.ours.memory, 0, 0).unwrap();
                theirs.add_used(&both.theirs, 0, 0).unwrap();
                used = used.wrapping_add(1);
            }
            // Theirs may tell of nothing new; then nothing is lost if nobody is told.
            let expected = theirs.needs_notification(&both.theirs).unwrap() && count > 0;
            prop_assert_eq!(ours.take_signal(&both.ours.memory).unwrap(), expected);
        }
    }

    /// Whatever is in memory, and wherever the queue is.
    #[test]
    fn nothing_in_memory_panics(
        bytes in prop::collection::vec(any::<u8>(), 0x400),
        size in any::<u16>(),
        places in prop::array::uniform3(prop_oneof![0u64..0x400, any::<u64>()]),
        event_index in any::<bool>(),
    ) {
        let ram = ram(0..0x400);
        ram.memory.write_bytes(Gpa(0), &bytes).unwrap();
        let size = if size & 1 == 0 { 1 << (size >> 1 & 0xf) } else { size };
        let [descriptors, available, used] = places;
        let layout = Layout { size, descriptors: descriptors & !15, available: available & !1, used: used & !3 };
        let Ok(mut queue) = Queue::new(layout, &ram.memory, event_index, true) else {
            return Ok(());
        };
        let served = queue.serve(&ram.memory, |chain| {
            let mut some = [0; 64];
            let _: Result<usize, MemoryError> = chain.readable.read(&ram.memory, 3, &mut some);
            let _: Result<usize, MemoryError> = chain.writable.write(&ram.memory, 5, &some);
            Ok(Some(chain.writable.len()))
        });
        if served.is_ok() {
            let _: Result<bool, QueueError> = queue.take_signal(&ram.memory);
        }
    }
}

/// Two tables, the first available chain, and what it is refused for.
fn refusal(table: &[Desc], indirect: &[Desc]) -> QueueError {
    let both = Both::new();
    both.table(LAYOUT.descriptors, table);
    both.table(INDIRECT, indirect);
    both.available(1, &[0]);
    both.queue(false).pop(&both.ours.memory, &mut Chain::default()).unwrap_err()
}

#[test]
fn every_broken_chain_is_refused() {
    let table = |len| Desc(INDIRECT, len, 4, 0);
    assert_eq!(refusal(&[Desc(0, 1, 1, 0)], &[]), QueueError::TooLong(SIZE));
    assert_eq!(refusal(&[Desc(0, 1, 1, SIZE)], &[]), QueueError::Index(SIZE, SIZE));
    assert_eq!(refusal(&[Desc(0, 1, 3, 1), Desc(0, 1, 0, 0)], &[]), QueueError::Order);
    let huge = Desc(0, 1 << 31, 1, 1);
    assert_eq!(refusal(&[huge, Desc(0, 1 << 31, 0, 0)], &[]), QueueError::TooLarge);
    assert_eq!(refusal(&[table(0)], &[]), QueueError::IndirectSize(0));
    assert_eq!(refusal(&[table(24)], &[]), QueueError::IndirectSize(24));
    assert_eq!(refusal(&[table(1 << 20)], &[]), QueueError::IndirectSize(1 << 20));
    assert_eq!(refusal(&[Desc(INDIRECT, 16, 5, 1)], &[]), QueueError::Indirect);
    assert_eq!(refusal(&[table(16)], &[table(16)]), QueueError::Indirect);
    assert_eq!(refusal(&[table(16)], &[Desc(0, 1, 1, 1)]), QueueError::Index(1, 1));
    let outside = Desc(END - 8, 16, 4, 0);
    assert!(matches!(refusal(&[outside], &[]), QueueError::Memory(_)));
    let both = Both::new();
    both.available(SIZE + 1, &[]);
    let error = both.queue(false).pop(&both.ours.memory, &mut Chain::default());
    assert_eq!(error, Err(QueueError::Available(SIZE + 1, SIZE)));
    let not_negotiated = Queue::new(LAYOUT, &both.ours.memory, false, false);
    both.table(LAYOUT.descriptors, &[table(16)]);
    both.available(1, &[0]);
    let error = not_negotiated.unwrap().pop(&both.ours.memory, &mut Chain::default());
    assert_eq!(error, Err(QueueError::Indirect));
}

/// Linux makes them: a block request of as many segments as it may have.
#[test]
fn a_chain_may_be_as_long_as_the_queue_also_in_a_table() {
    let both = Both::new();
    let long = |count: u16| (1..=count).map(move |i| Desc(0x8000, 1, u16::from(i < count), i));
    let pop = || {
        let mut chain = Chain::default();
        let popped = both.queue(false).pop(&both.ours.memory, &mut chain);
        popped.map(|_| chain.readable.len())
    };
    both.available(1, &[0]);
    both.table(LAYOUT.descriptors, &long(SIZE).collect::<Vec<_>>());
    assert_eq!(pop(), Ok(SIZE.into()));
    both.table(INDIRECT, &long(SIZE + 1).collect::<Vec<_>>());
    let table = |count: u16| Desc(INDIRECT, u32::from(count) * 16, 4, 0);
    both.table(LAYOUT.descriptors, &[table(SIZE + 1)]);
    assert_eq!(pop(), Err(QueueError::TooLong(SIZE)));
    both.table(INDIRECT, &long(SIZE).collect::<Vec<_>>());
    both.table(LAYOUT.descriptors, &[table(SIZE)]);
    assert_eq!(pop(), Ok(SIZE.into()));
}

#[test]
fn queues_must_be_in_memory_and_aligned() {
    let ram = ram(0..END);
    let new = |layout| Queue::new(layout, &ram.memory, false, false).err();
    assert_eq!(new(LAYOUT), None);
    for size in [0, 3, 0xffff] {
        assert_eq!(new(Layout { size, ..LAYOUT }), Some(QueueError::Size(size)));
    }
    let wrong = [
        Layout { descriptors: 0x1008, ..LAYOUT },
        Layout { available: 0x2001, ..LAYOUT },
        Layout { used: 0x3002, ..LAYOUT },
        Layout { descriptors: END - 16, ..LAYOUT },
        Layout { available: END - 20, ..LAYOUT },
        Layout { used: END - 68, ..LAYOUT },
        Layout { used: u64::MAX - 3, ..LAYOUT },
    ];
    for layout in wrong {
        assert!(matches!(new(layout), Some(QueueError::Memory(_))), "{layout:?}");
    }
}

#[test]
fn serving_says_where_it_wants_to_be_notified() {
    for event_index in [false, true] {
        let both = Both::new();
        both.table(LAYOUT.descriptors, &[Desc(0x8000, 4, 0, 0)]);
        both.available(3, &[0, 0, 0]);
        let memory = &both.ours.memory;
        let mut queue = both.queue(event_index);
        let mut seen = 0;
        let served = queue.serve(memory, |_| {
            seen += 1;
            if !event_index {
                assert_eq!(memory.read_obj::<u16>(Gpa(LAYOUT.used)), Ok(1));
            }
            // One more becomes available while the second is worked on.
            if seen == 2 {
                both.available(4, &[0, 0, 0, 0]);
            }
            Ok((seen < 4).then_some(0))
        });
        assert_eq!((served, seen), (Ok(false), 4));
        let wanted = if event_index { LAYOUT.used + 4 + 64 } else { LAYOUT.used };
        assert_eq!(memory.read_obj::<u16>(Gpa(wanted)), Ok(if event_index { 3 } else { 0 }));
        assert_eq!(memory.read_obj::<u16>(Gpa(LAYOUT.used + 2)), Ok(3));
        assert_eq!(queue.serve(memory, |_| Ok(Some(0))), Ok(false));
        assert_eq!(memory.read_obj::<u16>(Gpa(LAYOUT.used + 2)), Ok(4));
    }
}

#[test]
fn without_event_indexes_a_flag_says_whether_to_tell() {
    let both = Both::new();
    let (mut queue, memory) = (both.queue(false), &both.ours.memory);
    assert_eq!(queue.take_signal(memory), Ok(false));
    queue.push(memory, 0, 0).unwrap();
    assert_eq!((queue.take_signal(memory), queue.take_signal(memory)), (Ok(true), Ok(false)));
    both.put(LAYOUT.available, &[1, 0]);
    queue.push(memory, 0, 0).unwrap();
    assert_eq!(queue.take_signal(memory), Ok(false));
}

#[test]
fn a_driver_that_never_stops_is_served_in_parts() {
    let both = Both::new();
    both.table(LAYOUT.descriptors, &[Desc(0x8000, 4, 0, 0)]);
    both.available(1, &[0; 8]);
    let mut seen = 0u16;
    let served = both.queue(true).serve(&both.ours.memory, |_| {
        seen += 1;
        both.available(seen + 1, &[]);
        Ok(Some(0))
    });
    assert_eq!((served, seen), (Ok(true), 256));
}

#[test]
fn buffers_are_one_run_of_bytes() {
    let ram = ram(0..0x100);
    let mut buffers = Buffers::default();
    for (at, len) in [(0x10, 3), (0x20, 0), (0x30, 4), (0x40, 1)] {
        buffers.push(Segment { at: Gpa(at), len });
    }
    assert_eq!(buffers.len(), 8);
    assert_eq!(buffers.write(&ram.memory, 2, b"abcdefgh"), Ok(6));
    let mut back = [0; 8];
    assert_eq!(buffers.read(&ram.memory, 1, &mut back), Ok(7));
    assert_eq!(&back, b"\0abcdef\0");
    assert_eq!(ram.memory.read_obj::<[u8; 5]>(Gpa(0x30)), Ok(*b"bcde\0"));
    assert_eq!(buffers.read(&ram.memory, 8, &mut back), Ok(0));
    buffers.push(Segment { at: Gpa(0xff), len: 2 });
    assert!(buffers.read(&ram.memory, 7, &mut back).is_err());
    buffers.push(Segment { at: Gpa(u64::MAX), len: 2 });
    assert!(buffers.write(&ram.memory, 10, b"xy").is_err());
}
