//! The boot information that a multiboot kernel finds by EBX, and the lists that it points to.
//!
//! Source: Multiboot Specification 0.6.96 §3.3.

use super::super::Given;
use super::super::StartError;
use super::super::map::Row;
use super::super::modules::Placed;
use super::super::place::{HIGH, LOW_RAM_END};
use super::{INFO, ROOM};
use crate::config::Type1Config;
use crate::memory::{Gpa, GuestMemory};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

/// `mem_lower`, `mem_upper`.
const MEMORY: u32 = 1 << 0;
/// `cmdline`.
const COMMAND_LINE: u32 = 1 << 2;
/// `mods_*`.
const MODULES: u32 = 1 << 3;
/// `mmap_*`.
const MAP: u32 = 1 << 6;
/// `boot_loader_name`.
const LOADER_NAME: u32 = 1 << 9;

#[derive(IntoBytes, FromZeros, Immutable)]
#[repr(C)]
struct Info {
    flags: U32,
    mem_lower: U32,
    mem_upper: U32,
    boot_device: U32,
    cmdline: U32,
    mods_count: U32,
    mods_addr: U32,
    syms: [U32; 4],
    mmap_length: U32,
    mmap_addr: U32,
    drives_length: U32,
    drives_addr: U32,
    config_table: U32,
    boot_loader_name: U32,
    apm_table: U32,
    vbe: [U32; 4],
    framebuffer: [U32; 7],
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Module {
    start: U32,
    end: U32,
    string: U32,
    reserved: U32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MapEntry {
    /// Of the rest of the entry.
    size: U32,
    addr: U64,
    len: U64,
    kind: U32,
}

const NAME: u64 = INFO.0 + 0xa0;
const MAP_LIST: u64 = INFO.0 + 0x100;
const MODULE_LIST: u64 = INFO.0 + 0xc00;
const COMMAND_LINE_AT: u64 = INFO.0 + 0x1000;
const NAME_TEXT: &[u8] = b"redox-hypervisor\0";
const ENTRY: u64 = size_of::<MapEntry>() as u64;
/// Rows that fit before the modules.
const MAX_ROWS: usize = ((MODULE_LIST - MAP_LIST) / ENTRY) as usize;
const MODULE: u64 = size_of::<Module>() as u64;
/// Modules that fit before the command line.
const MAX_MODULES: usize = ((COMMAND_LINE_AT - MODULE_LIST) / MODULE) as usize;
const _: () = assert!(MAX_MODULES > Type1Config::MAX_MODULES);
/// Longest command line, the kernel's name in it.
const LONGEST: u64 = ROOM.end - COMMAND_LINE_AT - 1;

/// Writes all of it but the command line.
pub fn write(
    memory: &GuestMemory,
    given: &Given<'_>,
    map: &[Row],
    modules: &[Placed],
) -> Result<(), StartError> {
    let rows = &map[..map.len().min(MAX_ROWS)];
    let modules = &modules[..modules.len().min(MAX_MODULES)];
    let kib = |from: u64, to: u64| u32::try_from(to.saturating_sub(from) >> 10).unwrap_or(u32::MAX);
    let info = Info {
        flags: U32::new(MEMORY | COMMAND_LINE | MODULES | MAP | LOADER_NAME),
        mem_lower: U32::new(kib(0, LOW_RAM_END.min(given.low_ram_end()))),
        mem_upper: U32::new(kib(HIGH, given.low_ram_end())),
        cmdline: low(COMMAND_LINE_AT),
        mods_count: low(modules.len() as u64),
        mods_addr: low(MODULE_LIST),
        mmap_length: low(rows.len() as u64 * ENTRY),
        mmap_addr: low(MAP_LIST),
        boot_loader_name: low(NAME),
        ..Info::new_zeroed()
    };
    memory.write_obj(INFO, &info)?;
    memory.write_bytes(Gpa(NAME), NAME_TEXT)?;
    for (i, placed) in modules.iter().enumerate() {
        let module = Module {
            start: low(placed.start),
            end: low(placed.start + placed.size),
            string: low(placed.text),
            reserved: U32::new(0),
        };
        memory.write_obj(Gpa(MODULE_LIST + i as u64 * MODULE), &module)?;
    }
    for (i, row) in rows.iter().enumerate() {
        let entry = MapEntry {
            size: low(ENTRY - 4),
            addr: U64::new(row.range.start),
            len: U64::new(row.range.end - row.range.start),
            kind: U32::new(row.kind as u32),
        };
        memory.write_obj(Gpa(MAP_LIST + i as u64 * ENTRY), &entry)?;
    }
    Ok(())
}

/// Writes the command line as boot loaders do: the kernel's name, a blank, the arguments. Gives the
/// first address behind it.
pub fn write_command_line(memory: &GuestMemory, given: &Given<'_>) -> Result<u64, StartError> {
    let (name, text) = (given.name, given.cmdline);
    let size = (name.len() + 1 + text.len()) as u64;
    if size > LONGEST {
        return Err(StartError::CommandLineTooLong(size, LONGEST));
    }
    if name.contains(&0) || text.contains(&0) {
        return Err(StartError::CommandLineZero);
    }
    let mut at = COMMAND_LINE_AT;
    for part in [name, b" ", text, b"\0"] {
        memory.write_bytes(Gpa(at), part)?;
        at += part.len() as u64;
    }
    Ok(at)
}

/// An address or size below 4 GiB, as all here are.
fn low(value: u64) -> U32 {
    U32::new(u32::try_from(value).unwrap_or(0))
}
