//! The hvt ABI as it is: boot information, hypercalls and their arguments. The rest of this crate
//! stands on it; a unikernel needs it only to do what the safe API refuses.
//!
//! Order of calls: none; the boot information is there from the first instruction of `main`.

#![allow(unsafe_code)]

use core::arch::asm;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Hypercall `n` is a 4-byte `out` of the argument's address to this port plus `n`.
pub const HYPERCALL_PIO_BASE: u32 = 0x500;
/// A 4-byte `out` of 0 to this port tells the host that the network ring has submissions.
pub const RING_KICK_PIO: u32 = 0x600;
/// Bit of [`BootInfo::host_features`]: there is a network ring.
pub const FEATURE_RING_IO: u32 = 1;

/// Numbers of the hypercalls.
pub mod number {
    /// Argument [`super::Walltime`].
    pub const WALLTIME: u32 = 1;
    /// Argument [`super::Puts`].
    pub const PUTS: u32 = 2;
    /// Argument [`super::Poll`].
    pub const POLL: u32 = 3;
    /// Argument [`super::BlockIo`].
    pub const BLOCK_WRITE: u32 = 4;
    /// Argument [`super::BlockIo`].
    pub const BLOCK_READ: u32 = 5;
    /// Argument [`super::NetIo`].
    pub const NET_WRITE: u32 = 6;
    /// Argument [`super::NetIo`].
    pub const NET_READ: u32 = 7;
    /// Argument [`super::Halt`].
    pub const HALT: u32 = 8;
}

/// What the tender hands to `_start`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BootInfo {
    /// Memory size in bytes.
    pub mem_size: usize,
    /// First address after what the tender loaded; `.bss` may lie beyond it.
    pub kernel_end: usize,
    /// Frequency of the cycle counter in Hz.
    pub cpu_cycle_freq: u64,
    /// Address of the command line, a C string.
    pub cmdline: usize,
    /// Address of the manifest.
    pub mft: usize,
    /// What the host offers; 0 from a tender that does not know this field.
    pub host_features: u32,
    /// Unused by the guest.
    pub guest_features: u32,
    /// Address of the network ring, or 0.
    pub net_ring: usize,
}

/// Bytes of [`BootInfo`] before the fields that Solo5 0.12 added.
const OLD_SIZE: usize = 40;

/// Argument of [`number::WALLTIME`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct Walltime {
    /// Out: nanoseconds since 1970.
    pub nsecs: u64,
}

/// Argument of [`number::PUTS`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct Puts {
    /// In: address of the text.
    pub data: u64,
    /// In: its length in bytes.
    pub len: u64,
}

/// Argument of [`number::POLL`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct Poll {
    /// In: relative to the call.
    pub timeout_nsecs: u64,
    /// Out: bit `i` for the network with handle `i`.
    pub ready_set: u64,
    /// Out: how many bits are set.
    pub ret: i32,
}

/// Argument of [`number::BLOCK_WRITE`] and [`number::BLOCK_READ`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct BlockIo {
    /// In: index in the manifest.
    pub handle: u64,
    /// In: byte offset.
    pub offset: u64,
    /// In: address of the buffer.
    pub data: u64,
    /// In: its length in bytes.
    pub len: u64,
    /// Out.
    pub ret: i32,
}

/// Argument of [`number::NET_WRITE`] and [`number::NET_READ`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct NetIo {
    /// In: index in the manifest.
    pub handle: u64,
    /// In: address of the buffer.
    pub data: u64,
    /// In: its length in bytes. Out, when reading: the frame's.
    pub len: u64,
    /// Out.
    pub ret: i32,
}

/// Argument of [`number::HALT`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct Halt {
    /// In: 0, or the address of 512 readable bytes.
    pub cookie: u64,
    /// In: exit status.
    pub exit_status: i32,
}

static BOOT_INFO: AtomicPtr<BootInfo> = AtomicPtr::new(core::ptr::null_mut());

/// Keeps the address that `_start` got.
///
/// # Safety
///
/// `info` is what the tender passed, in memory that stays readable and unchanged.
pub(crate) unsafe fn set_boot_info(info: *mut BootInfo) {
    BOOT_INFO.store(info, Ordering::Relaxed);
}

/// The boot information.
pub fn boot_info() -> BootInfo {
    let address = BOOT_INFO.load(Ordering::Relaxed);
    // SAFETY: the tender's structure, readable until the end; `start` stored it before any user.
    // A tender without the newer fields puts the manifest there; any bytes do for integers.
    let info = unsafe { address.read() };
    without_fields_of_newer_tenders(info, address.addr())
}

/// Tenders before Solo5 0.12 put the manifest directly after their shorter structure: what we read
/// as features is the manifest then.
fn without_fields_of_newer_tenders(info: BootInfo, address: usize) -> BootInfo {
    let old = (address + OLD_SIZE..address + size_of::<BootInfo>()).contains(&info.mft);
    if old { BootInfo { host_features: 0, net_ring: 0, ..info } } else { info }
}

/// Makes hypercall `NUMBER`.
///
/// Registers and flags survive; the host reads and writes `argument` and what it points to.
///
/// # Safety
///
/// `argument` is what the hypercall expects, and so is every buffer it names.
#[inline(always)]
pub unsafe fn hypercall<const NUMBER: u32, T>(argument: *mut T) {
    // SAFETY: the caller's promise.
    unsafe { hypercall_at::<NUMBER>(argument.addr()) }
}

/// As [`hypercall`], with an address below 4 GiB; higher bits are cut off.
///
/// The pair `mov edx, imm32; out dx, eax` is a contract with tenders that rewrite the site into a
/// jump: exactly those five bytes of `mov`, with the `out` directly behind. Keep both in one
/// template so that no compiler moves them apart.
///
/// # Safety
///
/// As [`hypercall`].
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "a guest's memory ends at 4 GiB")]
pub unsafe fn hypercall_at<const NUMBER: u32>(argument: usize) {
    // SAFETY: the caller's promise; the host changes memory only, which asm! assumes by default.
    unsafe {
        asm!(
            "mov edx, {port}",
            "out dx, eax",
            port = const HYPERCALL_PIO_BASE + NUMBER,
            in("eax") argument as u32,
            out("edx") _,
            options(nostack, preserves_flags)
        );
    }
}

/// Rings the doorbell of the network ring.
///
/// # Safety
///
/// The host offered a ring and its submissions are valid.
#[inline(always)]
pub unsafe fn ring_kick() {
    // SAFETY: the caller's promise. The same five-byte form as in `hypercall_at`.
    unsafe {
        asm!(
            "mov edx, {port}",
            "out dx, eax",
            port = const RING_KICK_PIO,
            in("eax") 0,
            out("edx") _,
            options(nostack, preserves_flags)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn layout_is_that_of_the_c_headers() {
        assert_eq!(size_of::<BootInfo>(), 56);
        assert_eq!(size_of::<Poll>(), 24);
        assert_eq!(size_of::<BlockIo>(), 40);
        assert_eq!(size_of::<NetIo>(), 32);
        assert_eq!(size_of::<Halt>(), 16);
        assert_eq!(offset_of!(BootInfo, host_features), OLD_SIZE);
        assert_eq!(offset_of!(BlockIo, ret), 32);
        assert_eq!(offset_of!(NetIo, ret), 24);
    }

    fn info(mft: usize) -> BootInfo {
        BootInfo {
            mem_size: 1 << 29,
            kernel_end: 0x20_0000,
            cpu_cycle_freq: 1,
            cmdline: 0,
            mft,
            host_features: 1,
            guest_features: 0,
            net_ring: 0x1000,
        }
    }

    #[test]
    fn a_manifest_is_not_taken_for_features() {
        let old = without_fields_of_newer_tenders(info(0x10028), 0x10000);
        assert_eq!((old.host_features, old.net_ring), (0, 0));
        let new = without_fields_of_newer_tenders(info(0x10038), 0x10000);
        assert_eq!((new.host_features, new.net_ring), (1, 0x1000));
    }
}
