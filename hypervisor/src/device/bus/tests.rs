//! Against a model that keeps every byte's owner in a map.

use super::*;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Answers reads with its number and the offset, so that a wrong device or offset shows.
struct Probe(u64);

impl Device for Probe {
    fn name(&self) -> &str {
        "probe"
    }

    fn read(&mut self, access: Access, _: &mut Effects) -> u64 {
        !(self.0 << 32 | access.offset)
    }

    fn write(&mut self, access: Access, value: u64, _: &mut Effects) {
        assert_eq!(value & !access.width.mask(), 0);
    }
}

fn probe(number: u64) -> DeviceRef {
    DeviceRef::new(Probe(number))
}

fn read(bus: &Bus, address: u64, width: Width) -> Option<u64> {
    bus.read(address, width, &mut Effects::new())
}

#[test]
fn the_rule_for_unclaimed_addresses() {
    let ask = |rule| {
        let bus = Bus::new(rule);
        let wrote = bus.write(7, Width::Long, 1, &mut Effects::new());
        (read(&bus, 7, Width::Word), wrote, bus.missed())
    };
    assert_eq!(ask(Unclaimed::Ones), (Some(0xffff), Some(()), 2));
    assert_eq!(ask(Unclaimed::Zeros), (Some(0), Some(()), 2));
    assert_eq!(ask(Unclaimed::Fault), (None, None, 2));
}

#[test]
fn the_end_of_the_address_space_does_not_wrap() {
    let bus = Bus::new(Unclaimed::Fault);
    bus.insert(u64::MAX - 8..u64::MAX, probe(1)).unwrap();
    assert!(read(&bus, u64::MAX - 8, Width::Quad).is_some());
    assert_eq!(read(&bus, u64::MAX - 7, Width::Quad), None);
    assert_eq!(read(&bus, u64::MAX, Width::Byte), None);
}

#[test]
#[allow(clippy::reversed_empty_ranges)]
fn ranges_without_bytes_are_refused() {
    let bus = Bus::new(Unclaimed::Ones);
    assert_eq!(bus.insert(4..4, probe(1)), Err(BusError::Empty(4..4)));
    assert_eq!(bus.insert(4..3, probe(1)), Err(BusError::Empty(4..3)));
}

#[test]
fn a_move_onto_another_device_hides_the_moved_one() {
    let bus = Bus::new(Unclaimed::Fault);
    let (moved, still) = (probe(1), probe(2));
    bus.insert(0..16, moved.clone()).unwrap();
    bus.insert(16..32, still).unwrap();
    assert!(bus.place(&moved, Some(16..32)).is_err());
    assert_eq!(read(&bus, 8, Width::Byte), None);
    assert!(read(&bus, 16, Width::Byte).is_some());
    assert_eq!(bus.place(&moved, Some(8..16)), Ok(()));
    assert!(read(&bus, 8, Width::Byte).is_some());
    // It was never at 16..32, so leaving does not take away what is there.
    assert_eq!(bus.place(&moved, None), Ok(()));
    assert_eq!(read(&bus, 8, Width::Byte), None);
    assert!(read(&bus, 16, Width::Byte).is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Insert(Range<u64>),
    Remove(Range<u64>),
    Read(u64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0u64..96, 0u64..24).prop_map(|(start, length)| start..start + length);
    prop_oneof![
        range.clone().prop_map(Step::Insert),
        range.prop_map(Step::Remove),
        (0u64..130, 0usize..4).prop_map(|(address, width)| Step::Read(address, width)),
    ]
}

proptest! {
    #[test]
    fn the_bus_does_what_a_map_of_bytes_does(steps in prop::collection::vec(step(), 1..80)) {
        let bus = Bus::new(Unclaimed::Fault);
        let mut owners: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut ranges: Vec<(Range<u64>, u64)> = vec![];
        for (number, step) in steps.into_iter().enumerate() {
            let number = number as u64;
            match step {
                Step::Insert(range) => {
                    let free = !range.is_empty() && range.clone().all(|b| !owners.contains_key(&b));
                    prop_assert_eq!(bus.insert(range.clone(), probe(number)).is_ok(), free);
                    if free {
                        owners.extend(range.clone().map(|b| (b, (number, b - range.start))));
                        ranges.push((range, number));
                    }
                }
                Step::Remove(range) => {
                    let known = ranges.iter().position(|(r, _)| *r == range);
                    prop_assert_eq!(bus.remove(range.clone()).is_ok(), known.is_some());
                    if let Some(known) = known {
                        ranges.remove(known);
                        range.for_each(|b| { owners.remove(&b); });
                    }
                }
                Step::Read(address, width) => {
                    let width = Width::ALL[width];
                    let bytes: Vec<_> =
                        (address..address + width.bytes()).map(|b| owners.get(&b)).collect();
                    let whole = bytes.iter().all(|o| o.map(|o| o.0) == bytes[0].map(|o| o.0));
                    let expected = bytes[0].filter(|_| whole).map(|(number, offset)| {
                        !(number << 32 | offset) & width.mask()
                    });
                    prop_assert_eq!(read(&bus, address, width), expected);
                }
            }
        }
    }
}
