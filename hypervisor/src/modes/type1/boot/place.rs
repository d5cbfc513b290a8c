//! Where things go in a guest's memory that is started without firmware.
//!
//! The first MiB is laid out by constants; above it the kernel is where it wants to be and the
//! RAM disk as high as it may. Linux reserves the first 64 KiB and copies what it needs from the
//! rest of the first MiB early.

use crate::memory::Gpa;
use crate::modes::type1::layout::FIRMWARE_SHADOW;
use core::ops::Range;

/// Global descriptor table.
pub const GDT: Gpa = Gpa(0x1000);
/// Top of a small stack, for kernels that expect one.
pub const STACK: Gpa = Gpa(0x3000);
/// PVH's `hvm_start_info`, followed by its list of modules and memory map.
pub const START_INFO: Gpa = Gpa(0x4000);
/// Linux's `boot_params`.
pub const BOOT_PARAMS: Gpa = Gpa(0x7000);
/// Six pages of page tables.
pub const PAGE_TABLES: Gpa = Gpa(0x8000);
/// The command line and its terminating zero.
pub const COMMAND_LINE: Range<u64> = 0x1_0000..0x2_0000;
/// End of what a memory map gives away as RAM below 640 KiB.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI tables: where operating systems look for the RSDP, and firmware's place otherwise.
pub const ACPI: Range<u64> = FIRMWARE_SHADOW.start..BIOS.start;
/// What a BIOS leaves in its segment F000.
pub const BIOS: Range<u64> = 0xf_0000..FIRMWARE_SHADOW.end;
/// Where kernels may begin: 1 MiB.
pub const HIGH: u64 = 0x10_0000;

const PAGE: u64 = 0x1000;

/// The highest page-aligned place for `size` bytes that ends at `end` or below and does not begin
/// below `start`.
pub fn highest(start: u64, end: u64, size: u64) -> Option<u64> {
    let at = end.checked_sub(size)? & !(PAGE - 1);
    (at >= start).then_some(at)
}
