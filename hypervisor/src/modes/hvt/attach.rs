//! What may be attached to a device: the rules for block devices, and the errors.
//!
//! Rules and messages of Solo5 v0.12.1 `tenders/hvt/hvt_module_blk.c`; the messages are read by
//! its users' scripts.

use super::manifest::DeviceKind;
use alloc::string::String;

/// Size of a block in bytes where no other is asked for.
pub const DEFAULT_BLOCK_SIZE: u16 = 512;

/// Why something cannot be attached to a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// There is no device of this kind with this index.
    #[error("the manifest has no device of type {kind} with index {index}; find it by its name")]
    NoSuchDevice {
        /// The index.
        index: usize,
        /// The kind.
        kind: DeviceKind,
    },
    /// Not a power of two from 512 to 32768.
    #[error("Block size must be a multiple of 2 greater than or equal 512 (not {0})")]
    BlockSize(u64),
    /// The last block would not be whole.
    #[error("{name}: Backing storage size must be block aligned ({block_size} bytes)")]
    Unaligned {
        /// The device's name.
        name: String,
        /// The size of a block in bytes.
        block_size: u16,
    },
    /// Not even one block.
    #[error("{name}: Backing storage must be at least 1 block ({block_size} bytes) in size")]
    TooSmall {
        /// The device's name.
        name: String,
        /// The size of a block in bytes.
        block_size: u16,
    },
}

/// Checks a block size: a power of two that the manifest's 16 bits can hold, 512 at least.
///
/// # Errors
/// [`AttachError::BlockSize`].
pub fn check_block_size(size: u64) -> Result<u16, AttachError> {
    u16::try_from(size)
        .ok()
        .filter(|size| *size >= DEFAULT_BLOCK_SIZE && size.is_power_of_two())
        .ok_or(AttachError::BlockSize(size))
}

/// Checks a store of `capacity` bytes for block device `name`; returns the size of its blocks.
///
/// # Errors
/// [`AttachError`].
pub fn check_block(name: &str, capacity: u64, block_size: Option<u64>) -> Result<u16, AttachError> {
    let block_size = check_block_size(block_size.unwrap_or(DEFAULT_BLOCK_SIZE.into()))?;
    if !capacity.is_multiple_of(u64::from(block_size)) {
        return Err(AttachError::Unaligned { name: name.into(), block_size });
    }
    if capacity < u64::from(block_size) {
        return Err(AttachError::TooSmall { name: name.into(), block_size });
    }
    Ok(block_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_size_is_judged() {
        for size in (0..=0x2_0000u64).step_by(if cfg!(miri) { 128 } else { 1 }) {
            let good = [512, 1024, 2048, 4096, 8192, 16384, 32768].contains(&size);
            assert_eq!(check_block_size(size).is_ok(), good, "{size}");
        }
        assert_eq!(check_block_size(512 + (1 << 16)), Err(AttachError::BlockSize(66048)));
        assert!(check_block_size(u64::MAX).is_err());
    }

    #[test]
    fn a_store_is_whole_blocks_and_one_at_least() {
        let name = || String::from("storage");
        assert_eq!(check_block("storage", 512, None), Ok(512));
        assert_eq!(check_block("storage", 1 << 40, Some(32768)), Ok(32768));
        let unaligned = AttachError::Unaligned { name: name(), block_size: 4096 };
        assert_eq!(check_block("storage", 512, Some(4096)), Err(unaligned));
        let small = AttachError::TooSmall { name: name(), block_size: 512 };
        assert_eq!(check_block("storage", 0, None), Err(small));
        assert!(check_block("storage", 513, None).is_err());
    }

    /// Programs that watch a tender's output look for these.
    #[test]
    fn messages_are_those_that_programs_look_for() {
        let text = |e: Result<u16, AttachError>| alloc::format!("{}", e.unwrap_err());
        let aligned = "storage: Backing storage size must be block aligned (512 bytes)";
        assert_eq!(text(check_block("storage", 1, None)), aligned);
        let size = "Block size must be a multiple of 2 greater than or equal 512";
        assert!(text(check_block_size(3)).starts_with(size));
    }
}
