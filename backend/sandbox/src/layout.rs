//! Where things are in a guest's process.
//!
//! Guest memory lies at its guest-physical addresses. The part from [`LOWEST`] to 1 MiB is
//! read-only to an HVT guest and holds the boot information at its start; the end of it is
//! "reserved for future use" by Solo5, and that is where the monitor puts the stubs of rewritten
//! hypercall sites, within reach of a 32-bit jump.

use core::ops::Range;

/// Lowest address that is backed by memory: Linux's default `vm.mmap_min_addr`.
pub const LOWEST: u64 = 0x1_0000;
/// Where an HVT guest's own memory starts.
pub const GUEST_BASE: u64 = 0x10_0000;
/// One page in which stubs keep the guest's stack pointer; readable and writable.
pub const STUB_DATA: u64 = 0xe_f000;
/// Stubs; readable and executable.
pub const STUBS: Range<u64> = 0xf_0000..GUEST_BASE;
