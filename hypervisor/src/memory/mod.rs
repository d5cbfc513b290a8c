//! Guest-physical memory: addresses, permissions and the one checked way to touch guest RAM.
//!
//! Contract: a host component never holds a Rust reference into guest RAM. It either copies
//! (`read_obj`, `write_obj`, `read_bytes`, `write_bytes`), or asks for a [`GuestSlice`], a checked
//! pointer and length to hand to an operating system. Every path goes through
//! [`GuestMemory::slice`]. A guest may change its memory at any time, so a value is read once,
//! checked, and the copy is used.

mod address;
mod backing;
mod guest;
mod slice;

pub use address::{Gpa, Gva, Hpa};
pub use backing::Backing;
pub use guest::{GuestMemory, HostBlock};
pub use slice::GuestSlice;

use core::fmt;

bitflags::bitflags! {
    /// What may be done with a range of guest memory.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Perms: u8 {
        /// The range may be read.
        const READ = 1;
        /// The range may be written.
        const WRITE = 2;
        /// The range may be executed by the guest; the host never executes it.
        const EXEC = 4;
    }
}

/// What is done, in words: "read and written".
impl fmt::Display for Perms {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(Self::READ, "read"), (Self::WRITE, "written"), (Self::EXEC, "executed")];
        let mut between = "";
        for (_, word) in words.iter().filter(|(perm, _)| self.contains(*perm)) {
            write!(out, "{between}{word}")?;
            between = " and ";
        }
        if self.is_empty() { out.write_str("accessed") } else { Ok(()) }
    }
}

/// Why an access to guest memory was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The range is not wholly inside one block of guest memory.
    #[error("{len} bytes at guest address {gpa:#x} are outside of guest memory")]
    OutOfRange {
        /// First address of the range.
        gpa: Gpa,
        /// Length of the range in bytes.
        len: u64,
    },
    /// The range is guest memory, but not with the permission that the access needs.
    #[error("{len} bytes at guest address {gpa:#x} may not be {needs}")]
    Denied {
        /// First address of the range.
        gpa: Gpa,
        /// Length of the range in bytes.
        len: u64,
        /// The permission that is missing somewhere in the range.
        needs: Perms,
    },
    /// An atomic access was not aligned to its size.
    #[error("guest address {0:#x} is not aligned for an atomic access")]
    Misaligned(Gpa),
    /// Two blocks of guest memory would overlap, or a block would wrap around.
    #[error("guest memory {start:#x}..{end:#x} overlaps other memory or wraps around")]
    Overlap {
        /// First address.
        start: u64,
        /// End, or the highest address where it wraps around.
        end: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_refused_access_is_told_in_words() {
        let denied = |needs| MemoryError::Denied { gpa: Gpa(0x1000), len: 8, needs }.to_string();
        let both = denied(Perms::READ | Perms::WRITE);
        assert_eq!(both, "8 bytes at guest address 0x1000 may not be read and written");
        assert!(denied(Perms::WRITE).ends_with(" may not be written"));
        assert!(denied(Perms::EXEC).ends_with(" may not be executed"));
        assert!(denied(Perms::empty()).ends_with(" may not be accessed"));
    }
}
