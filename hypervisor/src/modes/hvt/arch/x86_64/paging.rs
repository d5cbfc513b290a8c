//! The page tables: identity mapping of all memory (Intel SDM vol. 3 §4.5, 4-level paging).
//!
//! The first 2 MiB are mapped in pages of 4 KiB: nothing below the boot information, so that a
//! null pointer faults and the tables are out of the guest's reach; read-only up to where images
//! start. All above is mapped in pages of 2 MiB. What an image's segments may do is not in these
//! tables: the backend enforces it beneath them.

use super::{BOOT_INFO, PML4};
use crate::memory::{Gpa, GuestMemory, MemoryError};
use crate::modes::hvt::solo5_abi::GUEST_MIN_BASE;
use core::ops::Range;
use zerocopy::IntoBytes;

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

/// Entries that are written at once.
const BATCH: usize = 64;

/// Writes tables that map `bytes` of memory, a multiple of 2 MiB and at most 4 GiB.
pub fn write(memory: &GuestMemory, bytes: u64) -> Result<(), MemoryError> {
    let table = PRESENT | WRITABLE;
    fill(memory, PML4.0, 0..1, |_| PDPT | table)?;
    fill(memory, PDPT, 0..DIRECTORIES, |i| (PD + i * SMALL_PAGE) | table)?;
    fill(memory, PD, 0..1, |_| PT | table)?;
    let large = |page| (page * LARGE_PAGE) | PRESENT | WRITABLE | LARGE;
    fill(memory, PD, 1..bytes / LARGE_PAGE, large)?;
    fill(memory, PT, BOOT_INFO.0 / SMALL_PAGE..LARGE_PAGE / SMALL_PAGE, |page| {
        let address = page * SMALL_PAGE;
        let writable = if address < GUEST_MIN_BASE { 0 } else { WRITABLE };
        address | PRESENT | writable
    })
}

/// Writes a run of entries; what is in guest memory is checked once for many of them.
fn fill(
    memory: &GuestMemory,
    table: u64,
    indices: Range<u64>,
    entry: impl Fn(u64) -> u64,
) -> Result<(), MemoryError> {
    let mut batch = [0u64; BATCH];
    for start in indices.clone().step_by(BATCH) {
        let run = start..indices.end.min(start + BATCH as u64);
        let mut count = 0;
        for (place, index) in batch.iter_mut().zip(run) {
            *place = entry(index);
            count += 1;
        }
        memory.write_bytes(Gpa(table + start * 8), batch[..count].as_bytes())?;
    }
    Ok(())
}
