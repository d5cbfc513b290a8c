//! What ACPI's tables say of a machine: its CPUs, interrupt controllers, power and reset
//! (ACPI 6.5 §5.2). AML is not run: the one value needed from it, how to power off, is looked up.
//!
//! [`read`] is called once, while physical memory is readable. Tables with a wrong checksum or
//! beyond a limit are passed over.

pub mod fadt;
pub mod madt;
pub mod sleep;

use crate::boot::Physical;
use arrayvec::ArrayVec;
use core::ops::Range;
use fadt::Fadt;
use madt::Madt;

/// Bytes of a table that are read at most; the DSDT is not read here.
const MAX_TABLE: usize = 16 << 10;
/// Tables that are looked at.
const MAX_TABLES: usize = 128;
const HEADER: usize = 36;

/// Where a BIOS leaves the root pointer.
const BIOS_AREA: Range<u64> = 0xe_0000..0x10_0000;

/// What the tables say.
#[derive(Debug, Clone, Default)]
pub struct Acpi {
    /// CPUs and interrupt controllers.
    pub madt: Option<Madt>,
    /// Power, reset, timer.
    pub fadt: Option<Fadt>,
    /// PCI configuration space in memory: address, first and last bus.
    pub mcfg: Option<(u64, u8, u8)>,
}

/// One table's bytes.
pub(crate) type Table = ArrayVec<u8, MAX_TABLE>;

/// A little-endian number inside of a table.
pub(crate) fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let part = bytes.get(at..at.checked_add(N)?)?;
    Some(part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Reads the tables. `rsdp` is the root pointer, if the boot loader knew it.
pub fn read(memory: &impl Physical, rsdp: Option<u64>) -> Acpi {
    let mut acpi = Acpi::default();
    let rsdp = rsdp.or_else(|| find_rsdp(memory));
    let Some((root, width)) = rsdp.and_then(|at| root(memory, at)) else { return acpi };
    let mut table = Table::new();
    let mut entries = ArrayVec::<u64, MAX_TABLES>::new();
    if !load(memory, root, None, &mut table) {
        return acpi;
    }
    let mut at = HEADER;
    while let Some(entry) = match width {
        8 => number::<8>(&table, at),
        _ => number::<4>(&table, at),
    } {
        if entries.try_push(entry).is_err() {
            break;
        }
        at += width;
    }
    for entry in entries {
        let mut signature = [0; 4];
        if !memory.read(entry, &mut signature) {
            continue;
        }
        let wanted = matches!(&signature, b"APIC" | b"FACP" | b"MCFG");
        if !wanted || !load(memory, entry, Some(signature), &mut table) {
            continue;
        }
        match &signature {
            b"APIC" => acpi.madt = acpi.madt.or_else(|| Some(madt::parse(&table))),
            b"FACP" => acpi.fadt = acpi.fadt.or_else(|| fadt::parse(&table)),
            _ => acpi.mcfg = acpi.mcfg.or_else(|| mcfg(&table)),
        }
    }
    acpi
}

/// The first segment's entry (PCI Firmware Specification 3.3 §4.1.2).
fn mcfg(table: &[u8]) -> Option<(u64, u8, u8)> {
    let bus = |at| number::<1>(table, at).and_then(|bus| u8::try_from(bus).ok());
    Some((number::<8>(table, 44)?, bus(54)?, bus(55)?))
}

/// The root pointer in the BIOS' area, on a 16-byte boundary.
fn find_rsdp(memory: &impl Physical) -> Option<u64> {
    BIOS_AREA.step_by(16).find(|at| root(memory, *at).is_some())
}

/// Where the root table is, by the root pointer at `at`, and how wide its entries are.
fn root(memory: &impl Physical, at: u64) -> Option<(u64, usize)> {
    let mut bytes = [0; 36];
    let old = bytes.get_mut(..20)?;
    if !memory.read(at, old) || !old.starts_with(b"RSD PTR ") || sum(old) != 0 {
        return None;
    }
    if bytes[15] >= 2 && memory.read(at, &mut bytes) && sum(&bytes) == 0 {
        let xsdt = number::<8>(&bytes, 24)?;
        if xsdt != 0 {
            return Some((xsdt, 8));
        }
    }
    Some((number::<4>(&bytes, 16)?, 4))
}

/// Loads a table whole, if it is a good one.
fn load(memory: &impl Physical, at: u64, signature: Option<[u8; 4]>, table: &mut Table) -> bool {
    let mut header = [0; HEADER];
    if !memory.read(at, &mut header) || signature.is_some_and(|s| !header.starts_with(&s)) {
        return false;
    }
    let length = number::<4>(&header, 4).and_then(|length| usize::try_from(length).ok());
    let Some(length) = length.filter(|length| (HEADER..=MAX_TABLE).contains(length)) else {
        return false;
    };
    table.clear();
    let mut chunk = [0; 64];
    while table.len() < length {
        let part = (length - table.len()).min(chunk.len());
        let chunk = &mut chunk[..part];
        if !memory.read(at.saturating_add(table.len() as u64), chunk) {
            return false;
        }
        // There is room: the length is within the limit.
        let _ = table.try_extend_from_slice(chunk);
    }
    sum(table) == 0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// Memory made of pieces.
    #[derive(Default)]
    pub struct Pieces(pub Vec<(u64, Vec<u8>)>);

    impl Physical for Pieces {
        fn read(&self, at: u64, to: &mut [u8]) -> bool {
            for (start, bytes) in &self.0 {
                let from = at.checked_sub(*start).and_then(|from| usize::try_from(from).ok());
                let part = from.and_then(|from| bytes.get(from..from.checked_add(to.len())?));
                if let Some(part) = part {
                    to.copy_from_slice(part);
                    return true;
                }
            }
            false
        }
    }

    /// A table with its header and a right checksum.
    pub fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(signature);
        bytes.extend(body);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[9] = sum(&bytes).wrapping_neg();
        bytes
    }

    fn rsdp(rsdt: u32, xsdt: Option<u64>) -> Vec<u8> {
        let mut bytes = vec![0; 36];
        bytes[..8].copy_from_slice(b"RSD PTR ");
        bytes[15] = if xsdt.is_some() { 2 } else { 0 };
        bytes[16..20].copy_from_slice(&rsdt.to_le_bytes());
        bytes[8] = sum(&bytes[..20]).wrapping_neg();
        bytes[24..32].copy_from_slice(&xsdt.unwrap_or(0).to_le_bytes());
        bytes[32] = sum(&bytes).wrapping_neg();
        bytes
    }

    fn mcfg_table() -> Vec<u8> {
        let mut body = vec![0; 8];
        body.extend(0xb000_0000u64.to_le_bytes());
        body.extend([0, 0, 0, 255, 0, 0, 0, 0]);
        table(b"MCFG", &body)
    }

    #[test]
    fn both_kinds_of_roots_lead_to_the_tables() {
        let xsdt = table(b"XSDT", &0x5000u64.to_le_bytes());
        let rsdt = table(b"RSDT", &0x5000u32.to_le_bytes());
        for (pointer, at) in [(rsdp(0x4000, None), 0xf_1230), (rsdp(0, Some(0x3000)), 0xe_0000)] {
            let memory = Pieces(vec![
                (at, pointer),
                (0x3000, xsdt.clone()),
                (0x4000, rsdt.clone()),
                (0x5000, mcfg_table()),
            ]);
            for known in [Some(at), None] {
                assert_eq!(read(&memory, known).mcfg, Some((0xb000_0000, 0, 255)));
            }
        }
    }

    #[test]
    fn broken_tables_are_passed_over() {
        let mut broken = mcfg_table();
        broken[50] ^= 1;
        let mut long = table(b"MCFG", &[0; 20]);
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        for bad in [broken, long, vec![1, 2], table(b"MCFG", &[0; 3])] {
            let entries = [0x5000u64.to_le_bytes(), 0xdead_0000u64.to_le_bytes()].concat();
            let xsdt = table(b"XSDT", &entries);
            let memory =
                Pieces(vec![(0x100, rsdp(0, Some(0x3000))), (0x3000, xsdt), (0x5000, bad)]);
            assert_eq!(read(&memory, Some(0x100)).mcfg, None);
        }
        assert!(read(&Pieces::default(), None).fadt.is_none());
        assert!(read(&Pieces::default(), Some(u64::MAX - 3)).fadt.is_none());
    }
}
