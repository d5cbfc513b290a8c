//! The page tables: identity mapping of all memory (Intel SDM vol. 3 §4.5, 4-level paging).
//!
//! The first 2 MiB are mapped in pages of 4 KiB: nothing below the boot information, so that a
//! null pointer faults and the tables are out of the guest's reach; read-only up to where images
//! start. All above is mapped in pages of 2 MiB. What an image's segments may do is not in these
//! tables: the backend enforces it beneath them.

use super::{BOOT_INFO, PML4};
use crate::memory::{Gpa, GuestMemory, MemoryError};
use crate::modes::hvt::solo5_abi::GUEST_MIN_BASE;

const PDPT: u64 = 0x3000;
/// Four page directories, one after the other: 4 GiB.
const PD: u64 = 0x4000;
const DIRECTORIES: u64 = 4;
/// The page table of the first 2 MiB.
const PT: u64 = 0x8000;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;

const SMALL_PAGE: u64 = 0x1000;
const LARGE_PAGE: u64 = 0x20_0000;

/// Writes tables that map `bytes` of memory, a multiple of 2 MiB and at most 4 GiB.
pub fn write(memory: &GuestMemory, bytes: u64) -> Result<(), MemoryError> {
    set(memory, PML4.0, 0, PDPT | PRESENT | WRITABLE)?;
    for i in 0..DIRECTORIES {
        set(memory, PDPT, i, (PD + i * SMALL_PAGE) | PRESENT | WRITABLE)?;
    }
    set(memory, PD, 0, PT | PRESENT | WRITABLE)?;
    for page in 1..bytes / LARGE_PAGE {
        set(memory, PD, page, (page * LARGE_PAGE) | PRESENT | WRITABLE | LARGE)?;
    }
    for page in BOOT_INFO.0 / SMALL_PAGE..LARGE_PAGE / SMALL_PAGE {
        let address = page * SMALL_PAGE;
        let writable = if address < GUEST_MIN_BASE { 0 } else { WRITABLE };
        set(memory, PT, page, address | PRESENT | writable)?;
    }
    Ok(())
}

fn set(memory: &GuestMemory, table: u64, index: u64, entry: u64) -> Result<(), MemoryError> {
    memory.write_obj(Gpa(table + index * 8), &entry)
}
