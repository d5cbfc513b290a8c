//! What a guest is told of its physical addresses: the map that Linux, PVH and firmware share.

use super::place::{HIGH, LOW_RAM_END};
use crate::modes::type1::layout::FIRMWARE_SHADOW;
use alloc::vec::Vec;
use core::ops::Range;

/// What addresses are for (ACPI 6.5 §15, "Address Range Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// RAM.
    Ram = 1,
    /// Anything that is not to be used.
    Reserved = 2,
}

/// One row of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The addresses; not empty.
    pub range: Range<u64>,
    /// What they are for.
    pub kind: Kind,
}

/// The map of a machine that starts without firmware: RAM but for the end of the first 640 KiB
/// and what is between it and 1 MiB; the tables; `reserved` ranges such as the ECAM. Ascending.
pub fn without_firmware(ram: &[Range<u64>], reserved: &[Range<u64>]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut ram_row = |from: u64, range: &Range<u64>, to: u64| {
        let range = range.start.max(from)..range.end.min(to);
        if !range.is_empty() {
            rows.push(Row { range, kind: Kind::Ram });
        }
    };
    for range in ram {
        ram_row(0, range, LOW_RAM_END);
        ram_row(HIGH, range, u64::MAX);
    }
    let others = reserved.iter().chain([&FIRMWARE_SHADOW]).filter(|range| !range.is_empty());
    rows.extend(others.map(|range| Row { range: range.clone(), kind: Kind::Reserved }));
    rows.sort_by_key(|row| row.range.start);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_has_a_hole_below_one_mebibyte() {
        let rows = without_firmware(
            &[0..0xb000_0000, 1 << 32..1 << 33],
            &[0xe000_0000..0xf000_0000, 5..5],
        );
        let rows: Vec<_> =
            rows.into_iter().map(|row| (row.range.start, row.range.end, row.kind)).collect();
        assert_eq!(
            rows,
            [
                (0, 0x9_fc00, Kind::Ram),
                (0xe_0000, 0x10_0000, Kind::Reserved),
                (0x10_0000, 0xb000_0000, Kind::Ram),
                (0xe000_0000, 0xf000_0000, Kind::Reserved),
                (1 << 32, 1 << 33, Kind::Ram),
            ]
        );
    }
}
