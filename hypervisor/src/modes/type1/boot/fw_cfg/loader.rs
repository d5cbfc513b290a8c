//! The script by which firmware places ACPI tables: allocate, patch pointers, make checksums.

use super::Contents;
use crate::modes::type1::boot::acpi::{CHECKSUM, Tables};
use alloc::vec::Vec;
use core::ops::Range;

const TABLES: &str = "etc/acpi/tables";
const RSDP: &str = "etc/acpi/rsdp";
const SCRIPT: &str = "etc/table-loader";

/// Tables grow by as much at most between when their size is announced and when they are asked
/// for: firmware may move PCI's windows.
const GRANULE: usize = 4096;
const ENTRY: usize = 128;
const NAME: usize = 56;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

const ZONE_HIGH: u8 = 1;
/// Below 1 MiB, where operating systems look for the RSDP.
const ZONE_FSEG: u8 = 2;

/// Where the RSDP has its pointer and its two checksums, and what they cover.
const RSDP_XSDT: usize = 24;
const RSDP_CHECKSUMS: [(usize, Range<usize>); 2] = [(8, 0..20), (32, 0..36)];

/// Announces the three files.
pub fn reserve(contents: &mut Contents, tables: &Tables) {
    contents.add_late(RSDP, tables.rsdp(0).len());
    contents.add_late(TABLES, (tables.blob.len() + 1).next_multiple_of(GRANULE));
    contents.add_late(SCRIPT, (script(tables).len() + 1).next_multiple_of(GRANULE));
}

/// Gives them their contents. An unused entry of the script is a command 0, which is skipped.
pub fn fill(contents: &mut Contents, tables: &Tables) {
    let mut rsdp = tables.rsdp(0);
    let mut blob = tables.blob.clone();
    // Firmware adds up what is there: a checksum that is not there yet must be 0.
    RSDP_CHECKSUMS.iter().for_each(|(at, _)| rsdp[*at] = 0);
    tables.tables.iter().for_each(|table| blob[table.start + CHECKSUM] = 0);
    contents.fill_late(RSDP, rsdp);
    contents.fill_late(TABLES, blob);
    contents.fill_late(SCRIPT, script(tables));
}

fn script(tables: &Tables) -> Vec<u8> {
    let mut script = Vec::new();
    allocate(&mut script, TABLES, 64, ZONE_HIGH);
    allocate(&mut script, RSDP, 16, ZONE_FSEG);
    for pointer in &tables.pointers {
        add_pointer(&mut script, TABLES, pointer.at, pointer.width);
    }
    add_pointer(&mut script, RSDP, RSDP_XSDT, 8);
    for table in &tables.tables {
        add_checksum(&mut script, TABLES, table.start + CHECKSUM, table.clone());
    }
    for (at, range) in RSDP_CHECKSUMS {
        add_checksum(&mut script, RSDP, at, range);
    }
    script
}

fn allocate(script: &mut Vec<u8>, file: &str, align: u32, zone: u8) {
    entry(script, ALLOCATE, &[&name(file), &align.to_le_bytes(), &[zone]]);
}

/// Every pointer points into the tables.
fn add_pointer(script: &mut Vec<u8>, file: &str, at: usize, width: u8) {
    entry(script, ADD_POINTER, &[&name(file), &name(TABLES), &number(at), &[width]]);
}

fn add_checksum(script: &mut Vec<u8>, file: &str, at: usize, range: Range<usize>) {
    let (start, length) = (number(range.start), number(range.end - range.start));
    entry(script, ADD_CHECKSUM, &[&name(file), &number(at), &start, &length]);
}

fn entry(script: &mut Vec<u8>, command: u32, fields: &[&[u8]]) {
    let end = script.len() + ENTRY;
    script.extend_from_slice(&command.to_le_bytes());
    fields.iter().for_each(|field| script.extend_from_slice(field));
    script.resize(end, 0);
}

fn name(file: &str) -> [u8; NAME] {
    let mut name = [0; NAME];
    name[..file.len()].copy_from_slice(file.as_bytes());
    name
}

/// Offsets are far below 4 GiB.
fn number(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}
