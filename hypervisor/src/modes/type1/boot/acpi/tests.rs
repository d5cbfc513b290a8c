//! The tables as an operating system walks them.

#![allow(clippy::single_range_in_vec_init, reason = "a list of one range is meant")]

use super::*;
use crate::modes::hvt::fixture::ram;
use crate::modes::type1::layout::{ECAM, PCI_WINDOW};
use alloc::vec;
use proptest::prelude::*;

fn facts(vcpus: u32) -> Facts {
    let window = u32::try_from(PCI_WINDOW.start).unwrap()..u32::try_from(PCI_WINDOW.end).unwrap();
    Facts { vcpus, ecam: Some(ECAM), windows: vec![window], window64: Some(1 << 36..1 << 37) }
}

struct Found {
    bytes: Vec<u8>,
}

impl Found {
    fn at<const N: usize>(&self, offset: usize) -> [u8; N] {
        self.bytes[offset..offset + N].try_into().unwrap()
    }

    fn sum(&self) -> u8 {
        self.bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }
}

/// Installs the tables and finds them from the RSDP on.
fn walk(facts: &Facts) -> Vec<Found> {
    let ram = ram(0..1 << 20);
    let rsdp = Tables::build(facts).install(&ram.memory).unwrap();
    assert_eq!(rsdp.0 % 16, 0);
    let read = |at: u64, size: usize| {
        let mut bytes = vec![0; size];
        ram.memory.read_bytes(Gpa(at), &mut bytes).unwrap();
        Found { bytes }
    };
    let table = |at: u64| {
        let size = u32::from_le_bytes(read(at, 8).at(4));
        read(at, usize::try_from(size).unwrap())
    };
    let root = read(rsdp.0, 36);
    assert_eq!((root.at(0), root.at(15)), (*b"RSD PTR ", [2]));
    assert_eq!((root.sum(), Found { bytes: root.bytes[..20].to_vec() }.sum()), (0, 0));
    let xsdt = table(u64::from_le_bytes(root.at(24)));
    assert_eq!((xsdt.at(0), xsdt.sum()), (*b"XSDT", 0));
    let listed = xsdt.bytes[36..].chunks(8);
    let mut found: Vec<_> =
        listed.map(|at| table(u64::from_le_bytes(at.try_into().unwrap()))).collect();
    let fadt = &found[0];
    let (facs, dsdt) = (u32::from_le_bytes(fadt.at(36)), u64::from_le_bytes(fadt.at(140)));
    assert_eq!(u64::from(u32::from_le_bytes(fadt.at(40))), dsdt);
    assert_eq!(facs % 64, 0);
    assert_eq!(read(facs.into(), 4).at(0), *b"FACS");
    found.push(table(dsdt));
    assert!(found.iter().all(|table| table.sum() == 0));
    found
}

#[test]
fn every_table_is_found_from_the_root() {
    let found = walk(&facts(3));
    let signatures: Vec<[u8; 4]> = found.iter().map(|table| table.at(0)).collect();
    assert_eq!(signatures, [*b"FACP", *b"APIC", *b"MCFG", *b"DSDT"]);
    let without = walk(&Facts { ecam: None, ..facts(1) });
    assert_eq!(without.len(), 3);
}

#[test]
fn fixed_hardware_is_where_the_board_has_it() {
    let fadt = &walk(&facts(1))[0];
    assert_eq!(fadt.bytes.len(), 276);
    assert_eq!(u16::from_le_bytes(fadt.at(46)), 9);
    assert_eq!(u32::from_le_bytes(fadt.at(48)), 0);
    let ports: [u32; 3] = [56, 64, 76].map(|offset| u32::from_le_bytes(fadt.at(offset)));
    assert_eq!(ports, [0x600, 0x604, 0x608]);
    // Legacy devices, no 8042, no VGA, MSI, a CMOS clock.
    assert_eq!(u16::from_le_bytes(fadt.at(109)), 0b101);
    // WBINVD, C1, no buttons, no RTC wake, a timer of 32 bits, a reset register.
    assert_eq!(u32::from_le_bytes(fadt.at(112)), 0b101_0111_0101);
    assert_eq!(fadt.at(116), [1, 8, 0, 1, 0xf9, 0xc, 0, 0, 0, 0, 0, 0, 6]);
}

#[test]
fn interrupt_controllers_are_all_listed() {
    let madt = &walk(&facts(3))[1];
    assert_eq!(madt.at(36), [0, 0, 0xe0, 0xfe, 1, 0, 0, 0]);
    let mut kinds = Vec::new();
    let mut rest = &madt.bytes[44..];
    while let [kind, length, ..] = *rest {
        kinds.push((kind, rest[3]));
        rest = &rest[usize::from(length)..];
    }
    assert_eq!(kinds, [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 9), (4, 0)]);
    assert_eq!(walk(&facts(1000))[1].bytes.len(), 44 + 255 * 8 + 12 + 20 + 6);
}

#[test]
fn ecam_has_as_many_buses_as_megabytes() {
    let mcfg = &walk(&facts(1))[2];
    assert_eq!(mcfg.at(44), ECAM.start.to_le_bytes());
    assert_eq!(mcfg.at(52), [0, 0, 0, 255]);
    let small = Facts { ecam: Some(0xe000_0000..0xe010_0000), ..facts(1) };
    assert_eq!(walk(&small)[2].at(52), [0, 0, 0, 0]);
}

#[test]
fn windows_go_around_ram_and_ecam() {
    let windows = |ram: u64, ecam: Option<u64>| {
        let ecam = ecam.map(|start| start..start + (256 << 20));
        windows(&[0..ram, 1 << 32..1 << 33], ecam.as_ref())
    };
    let (low, high) = (0x8000_0000, 0xfec0_0000);
    assert_eq!(windows(64 << 20, None), [low..high]);
    assert_eq!(windows(64 << 20, Some(0xe000_0000)), [low..0xe000_0000, 0xf000_0000..high]);
    assert_eq!(windows(0xb000_0000, Some(0xb000_0000)), [0xc000_0000..high]);
    assert_eq!(windows(0xb000_0000, Some(0x8000_0000)), [0xb000_0000..high]);
    assert_eq!(windows(64 << 20, Some(1 << 40)), [low..high]);
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let mut tables = Tables::build(&facts(1));
    tables.blob.resize(128 << 10, 0);
    let error = tables.install(&ram(0..1 << 20).memory).unwrap_err();
    assert_eq!(error, AcpiError::TooLarge(128 << 10));
    assert!(Tables::build(&facts(1)).install(&ram(0..1 << 16).memory).is_err());
}

proptest! {
    #[test]
    fn the_tables_of_any_number_of_processors_fit(vcpus in 0u32..=255, high in any::<bool>()) {
        let window64 = high.then_some(1 << 40..1 << 41);
        let found = walk(&Facts { vcpus, window64, ..facts(1) });
        prop_assert_eq!(found.len(), 4);
    }
}
