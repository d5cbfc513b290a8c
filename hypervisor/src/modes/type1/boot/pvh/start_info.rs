//! `struct hvm_start_info`, version 1, and the lists that it points to.

use crate::config::Type1Config;
use crate::memory::{Gpa, GuestMemory, MemoryError};
use crate::modes::type1::boot::Given;
use crate::modes::type1::boot::map::Row;
use crate::modes::type1::boot::modules::Placed;
use crate::modes::type1::boot::place::{BOOT_PARAMS, COMMAND_LINE, START_INFO};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct StartInfo {
    magic: U32,
    version: U32,
    flags: U32,
    nr_modules: U32,
    modlist_paddr: U64,
    cmdline_paddr: U64,
    rsdp_paddr: U64,
    memmap_paddr: U64,
    memmap_entries: U32,
    reserved: U32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Module {
    paddr: U64,
    size: U64,
    cmdline_paddr: U64,
    reserved: U64,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MapEntry {
    addr: U64,
    size: U64,
    kind: U32,
    reserved: U32,
}

const MODULES: u64 = START_INFO.0 + 0x80;
const MAP: u64 = START_INFO.0 + 0x400;
const MODULE: u64 = size_of::<Module>() as u64;
/// Modules that fit before the map.
const MAX_MODULES: usize = ((MAP - MODULES) / MODULE) as usize;
const _: () = assert!(MAX_MODULES > Type1Config::MAX_MODULES);
/// Rows that fit before what comes next.
const MAX_ROWS: usize = ((BOOT_PARAMS.0 - MAP) / 24) as usize;

/// Writes them. Rows of the map beyond those that fit are left out: no machine has as many.
pub fn write(
    memory: &GuestMemory,
    given: &Given<'_>,
    map: &[Row],
    modules: &[Placed],
) -> Result<(), MemoryError> {
    let rows = &map[..map.len().min(MAX_ROWS)];
    let modules = &modules[..modules.len().min(MAX_MODULES)];
    let info = StartInfo {
        magic: U32::new(MAGIC),
        version: U32::new(VERSION),
        flags: U32::new(0),
        nr_modules: U32::new(u32::try_from(modules.len()).unwrap_or(0)),
        modlist_paddr: U64::new(if modules.is_empty() { 0 } else { MODULES }),
        cmdline_paddr: U64::new(COMMAND_LINE.start),
        rsdp_paddr: U64::new(given.rsdp.0),
        memmap_paddr: U64::new(MAP),
        memmap_entries: U32::new(u32::try_from(rows.len()).unwrap_or(0)),
        reserved: U32::new(0),
    };
    memory.write_obj(START_INFO, &info)?;
    for (i, placed) in modules.iter().enumerate() {
        let module = Module {
            paddr: U64::new(placed.start),
            size: U64::new(placed.size),
            cmdline_paddr: U64::new(if placed.text_size > 0 { placed.text } else { 0 }),
            reserved: U64::new(0),
        };
        memory.write_obj(Gpa(MODULES + i as u64 * MODULE), &module)?;
    }
    for (i, row) in rows.iter().enumerate() {
        let entry = MapEntry {
            addr: U64::new(row.range.start),
            size: U64::new(row.range.end - row.range.start),
            kind: U32::new(row.kind as u32),
            reserved: U32::new(0),
        };
        memory.write_obj(Gpa(MAP + i as u64 * size_of::<MapEntry>() as u64), &entry)?;
    }
    Ok(())
}
