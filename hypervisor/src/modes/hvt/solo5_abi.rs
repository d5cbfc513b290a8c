//! Solo5's hvt ABI, versions 1 and 2, in Rust: numbers and structures shared with the guest.
//!
//! Sources: Solo5 v0.12.1 `include/hvt_abi.h`, `hvt_ring.h`, `mft_abi.h`, `elf_abi.h`. Version 1
//! (Solo5 0.6 and 0.7) has the same hypercalls and structures; only thread-local storage differs,
//! which is the guest's own business. All structures are little-endian, as the guest is.

use crate::memory::Gpa;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// ABI versions that are spoken here. `--version` names the newest.
pub const ABI_VERSIONS: core::ops::RangeInclusive<u32> = 1..=2;
/// `abi_target` of an hvt executable.
pub const ABI_TARGET_HVT: u32 = 1;
/// Lowest address at which a guest may be loaded.
pub const GUEST_MIN_BASE: u64 = 0x10_0000;
/// Size of the guest's command line in bytes, with its terminator.
pub const CMDLINE_SIZE: usize = 8192;
/// Bytes that a halt cookie must allow for.
pub const HALT_COOKIE_MAX: u64 = 512;
/// x86: hypercall `n` is a 4-byte `out` of a 32-bit guest address to this port plus `n`.
pub const HYPERCALL_PIO_BASE: u16 = 0x500;
/// x86: a 4-byte `out` of the ring's number to this port is a doorbell.
pub const RING_KICK_PIO: u16 = 0x600;

/// Hypercall numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Hypercall {
    /// Wall clock.
    Walltime = 1,
    /// Console output.
    Puts = 2,
    /// Wait for networks or time.
    Poll = 3,
    /// Write to a block device.
    BlockWrite = 4,
    /// Read from a block device.
    BlockRead = 5,
    /// Send a frame.
    NetWrite = 6,
    /// Receive a frame.
    NetRead = 7,
    /// End.
    Halt = 8,
}

impl Hypercall {
    /// Every hypercall, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Walltime,
        Self::Puts,
        Self::Poll,
        Self::BlockWrite,
        Self::BlockRead,
        Self::NetWrite,
        Self::NetRead,
        Self::Halt,
    ];

    /// The hypercall with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number.checked_sub(1)?)).copied()
    }

    /// Its name in Solo5's header, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Walltime => "walltime",
            Self::Puts => "puts",
            Self::Poll => "poll",
            Self::BlockWrite => "block_write",
            Self::BlockRead => "block_read",
            Self::NetWrite => "net_write",
            Self::NetRead => "net_read",
            Self::Halt => "halt",
        }
    }
}

/// `solo5_result_t`.
pub mod result {
    /// Done.
    pub const OK: i32 = 0;
    /// Nothing there yet.
    pub const AGAIN: i32 = 1;
    /// An argument is wrong.
    pub const EINVAL: i32 = 2;
    /// An error that the guest did not cause.
    pub const EUNSPEC: i32 = 3;
}

/// Exit status with which Solo5's bindings end after a fatal trap or an abort.
pub const EXIT_ABORT: i32 = 255;

/// Bit of `host_features` and `guest_features`: network ring I/O.
pub const FEATURE_RING_IO: u32 = 1;

/// What the guest's entry point gets the address of.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BootInfo {
    /// Memory size in bytes.
    pub mem_size: u64,
    /// First address after the loaded image.
    pub kernel_end: u64,
    /// Frequency of the cycle counter in Hz.
    pub cpu_cycle_freq: u64,
    /// Command line, a C string.
    pub cmdline: Gpa,
    /// Manifest.
    pub mft: Gpa,
    /// Features that the tender offers.
    pub host_features: u32,
    /// Features that the guest accepts.
    pub guest_features: u32,
    /// Network ring, or 0.
    pub net_ring: Gpa,
}

macro_rules! argument {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
        }
    };
}

argument!(
    /// Argument of [`Hypercall::Puts`].
    Puts {
        /// In: the text.
        data: Gpa,
        /// In: its length in bytes.
        len: u64,
    }
);
argument!(
    /// Argument of [`Hypercall::BlockWrite`] and [`Hypercall::BlockRead`].
    BlockIo {
        /// In: index in the manifest.
        handle: u64,
        /// In: byte offset.
        offset: u64,
        /// In: the buffer.
        data: Gpa,
        /// In: its length in bytes.
        len: u64,
        /// Out: a [`result`].
        ret: i32,
        /// Padding.
        reserved: u32,
    }
);
argument!(
    /// Argument of [`Hypercall::NetWrite`] and [`Hypercall::NetRead`].
    NetIo {
        /// In: index in the manifest.
        handle: u64,
        /// In: the buffer.
        data: Gpa,
        /// In: its length in bytes. Out, when reading: the frame's.
        len: u64,
        /// Out: a [`result`].
        ret: i32,
        /// Padding.
        reserved: u32,
    }
);
argument!(
    /// Argument of [`Hypercall::Poll`].
    Poll {
        /// In: relative to the call.
        timeout_nsecs: u64,
        /// Out: bit `i` is set if the network with handle `i` has a frame.
        ready_set: u64,
        /// Out: how many bits are set.
        ret: i32,
        /// Padding.
        reserved: u32,
    }
);
argument!(
    /// Argument of [`Hypercall::Halt`].
    Halt {
        /// In: 0, or [`HALT_COOKIE_MAX`] readable bytes, such as a trap frame.
        cookie: Gpa,
        /// In: exit status.
        exit_status: i32,
        /// Padding.
        reserved: u32,
    }
);

/// Network ring I/O: one ring of submissions and one of commits, in guest memory.
pub mod ring {
    use super::{FromBytes, Gpa, Immutable, IntoBytes, KnownLayout};

    /// Slots of each ring.
    pub const SIZE: u32 = 1024;
    /// [`Entry::operation`]: send the frame; no commit follows.
    pub const NET_WRITE: u32 = 1;
    /// [`Entry::operation`]: receive a frame; a commit follows.
    pub const NET_READ: u32 = 2;
    /// Offset of the submissions' tail, written by the guest.
    pub const ENT_TAIL: u64 = 0;
    /// Offset of the commits' head, written by the guest.
    pub const COM_HEAD: u64 = 4;
    /// Offset of the submissions' head, written by the host.
    pub const ENT_HEAD: u64 = 64;
    /// Offset of the commits' tail, written by the host.
    pub const COM_TAIL: u64 = 68;
    /// Offset of the flag with which the host asks for a doorbell.
    pub const NEEDS_KICK: u64 = 72;
    /// Offset of the submissions.
    pub const ENTRIES: u64 = 128;
    /// Offset of the commits.
    pub const COMMITS: u64 = ENTRIES + SIZE as u64 * size_of::<Entry>() as u64;
    /// Bytes of the whole structure.
    pub const BYTES: u64 = COMMITS + SIZE as u64 * size_of::<Commit>() as u64;

    argument!(
        /// A submission.
        Entry {
            /// [`NET_WRITE`] or [`NET_READ`]; others are skipped.
            operation: u32,
            /// Index in the manifest.
            handle: u32,
            /// Buffer.
            data: Gpa,
            /// Its length in bytes.
            len: u32,
            /// Comes back in the commit.
            id: u32,
            /// Unused.
            reserved: u64,
        }
    );
    argument!(
        /// A commit.
        Commit {
            /// The submission's.
            id: u32,
            /// A [`super::result`].
            ret: i32,
            /// Length of the frame in bytes.
            len: u32,
            /// Unused.
            reserved: u32,
        }
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes and offsets as C lays the structures of Solo5's headers out on x86_64.
    #[test]
    fn layout_is_that_of_the_c_headers() {
        assert_eq!(size_of::<BootInfo>(), 56);
        assert_eq!(size_of::<Puts>(), 16);
        assert_eq!(size_of::<BlockIo>(), 40);
        assert_eq!(size_of::<NetIo>(), 32);
        assert_eq!(size_of::<Poll>(), 24);
        assert_eq!(size_of::<Halt>(), 16);
        assert_eq!(size_of::<ring::Entry>(), 32);
        assert_eq!(size_of::<ring::Commit>(), 16);
        assert_eq!(ring::BYTES, 128 + 1024 * 48);
    }

    #[test]
    fn numbers_are_in_order() {
        for (i, call) in Hypercall::ALL.iter().enumerate() {
            assert_eq!(*call as usize, i + 1);
            assert_eq!(Hypercall::from_number(*call as u16), Some(*call));
        }
        assert_eq!(Hypercall::from_number(0), None);
        assert_eq!(Hypercall::from_number(9), None);
    }
}
