//! `struct boot_params`, the page that a kernel finds its parameters in
//! (Linux `Documentation/arch/x86/zero-page.rst`).

use super::header::{self, SetupHeader};
use crate::modes::type1::boot::Given;
use crate::modes::type1::boot::map::Row;
use crate::modes::type1::boot::place::COMMAND_LINE;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

/// Size of the page.
pub const SIZE: usize = 4096;

const ACPI_RSDP_ADDR: usize = 0x070;
const EXT_RAMDISK_IMAGE: usize = 0x0c0;
const EXT_RAMDISK_SIZE: usize = 0x0c4;
const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;
const E820_ENTRY: usize = 20;
/// Rows that fit into the page.
const MAX_ROWS: usize = 128;

/// "undefined" boot loader: none of the assigned numbers is ours.
const TYPE_OF_LOADER: u8 = 0xff;

/// Fills the page for a kernel at `at`. Rows of the map beyond 128 do not fit and are left out: no
/// machine has as many.
pub fn build(
    header: &SetupHeader,
    given: &Given<'_>,
    map: &[Row],
    (ramdisk, size): (u64, u64),
    at: u64,
) -> [u8; SIZE] {
    let mut page = [0; SIZE];
    let (ramdisk, size) = (U64::new(ramdisk), U64::new(size));
    let (ramdisk, size) = (ramdisk.as_bytes(), size.as_bytes());
    put(&mut page, ACPI_RSDP_ADDR, U64::new(given.rsdp.0).as_bytes());
    put(&mut page, EXT_RAMDISK_IMAGE, &ramdisk[4..]);
    put(&mut page, EXT_RAMDISK_SIZE, &size[4..]);
    let mut filled = *header;
    filled.type_of_loader = TYPE_OF_LOADER;
    filled.code32_start = low(at);
    filled.cmd_line_ptr = low(COMMAND_LINE.start);
    filled.ramdisk_image.as_mut_bytes().copy_from_slice(&ramdisk[..4]);
    filled.ramdisk_size.as_mut_bytes().copy_from_slice(&size[..4]);
    // A list in the file would point into memory that the loader did not fill.
    filled.setup_data = U64::new(0);
    put(&mut page, header_offset(), filled.as_bytes());
    let rows = &map[..map.len().min(MAX_ROWS)];
    page[E820_ENTRIES] = u8::try_from(rows.len()).unwrap_or(0);
    for (i, row) in rows.iter().enumerate() {
        let entry = E820_TABLE + i * E820_ENTRY;
        put(&mut page, entry, U64::new(row.range.start).as_bytes());
        put(&mut page, entry + 8, U64::new(row.range.end - row.range.start).as_bytes());
        put(&mut page, entry + 16, U32::new(row.kind as u32).as_bytes());
    }
    page
}

fn header_offset() -> usize {
    usize::try_from(header::OFFSET).unwrap_or(SIZE)
}

/// The low half; what is above 4 GiB goes to the `ext_` fields.
fn low(address: u64) -> U32 {
    let [a, b, c, d, ..] = address.to_le_bytes();
    U32::from_bytes([a, b, c, d])
}

fn put(page: &mut [u8; SIZE], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}
