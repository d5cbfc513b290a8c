//! How a guest's memory is laid out: how much the backend provides, how much the guest is told
//! of, and where the network ring is.
//!
//! Rules of Solo5 v0.12.1 (`hvt_x86_mem_size`, `hvt_net_reserve_ring`): memory comes in units of
//! 2 MiB, up to 4 GiB; the ring takes one unit above the memory that was asked for, or the last
//! of it where that would be more than 4 GiB. The guest's memory size leaves the ring out.

use crate::memory::Gpa;
use crate::modes::hvt::solo5_abi::ring;

/// Memory comes in multiples of this, in bytes.
pub const UNIT: u64 = 0x20_0000;
/// Most memory that a guest may have, in bytes, its ring included.
pub const MAX_MEMORY: u64 = 1 << 32;

const _: () = assert!(ring::BYTES <= UNIT);

/// A guest's memory, from guest-physical address 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// What the backend provides, in bytes, a multiple of [`UNIT`].
    pub alloc: u64,
    /// What the guest is told of, in bytes, a multiple of [`UNIT`].
    pub mem_size: u64,
    /// The network ring, right above what the guest is told of.
    pub ring: Option<Gpa>,
    /// Set if another size was asked for: the size in bytes that was taken instead, to be told
    /// as "adjusting memory to N bytes".
    pub adjusted: Option<u64>,
}

/// Why there is no such layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// More than an hvt guest can have.
    #[error(
        "guest memory size {0} bytes exceeds the max size {MAX_MEMORY} bytes; \
         ask for --mem=4096 or less"
    )]
    TooLarge(u64),
}

impl Layout {
    /// The layout for `requested` bytes, rounded down to whole units but to one at least, with a
    /// network ring or without.
    ///
    /// # Errors
    /// [`LayoutError::TooLarge`].
    pub fn new(requested: u64, with_ring: bool) -> Result<Self, LayoutError> {
        let size = (requested - requested % UNIT).max(UNIT);
        if size > MAX_MEMORY {
            return Err(LayoutError::TooLarge(size));
        }
        let adjusted = (size != requested).then_some(size);
        if !with_ring {
            return Ok(Self { alloc: size, mem_size: size, ring: None, adjusted });
        }
        let alloc = (size + UNIT).min(MAX_MEMORY);
        let mem_size = alloc - UNIT;
        Ok(Self { alloc, mem_size, ring: Some(Gpa(mem_size)), adjusted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_solo5_rounds_them() {
        for (asked, size) in [
            (0, UNIT),
            (1, UNIT),
            (UNIT - 1, UNIT),
            (UNIT, UNIT),
            (UNIT + 1, UNIT),
            (3 * UNIT - 1, 2 * UNIT),
            (MAX_MEMORY - 1, MAX_MEMORY - UNIT),
            (MAX_MEMORY, MAX_MEMORY),
            (MAX_MEMORY + UNIT - 1, MAX_MEMORY),
        ] {
            let layout = Layout::new(asked, false).unwrap();
            assert_eq!((layout.alloc, layout.mem_size, layout.ring), (size, size, None));
            assert_eq!(layout.adjusted, (asked != size).then_some(size));
        }
        for asked in [MAX_MEMORY + UNIT, u64::MAX] {
            let size = asked - asked % UNIT;
            assert_eq!(Layout::new(asked, false), Err(LayoutError::TooLarge(size)));
            assert_eq!(Layout::new(asked, true), Err(LayoutError::TooLarge(size)));
        }
    }

    #[test]
    fn the_ring_is_above_the_memory_that_was_asked_for() {
        for asked in [UNIT, 2 * UNIT, MAX_MEMORY - UNIT] {
            let layout = Layout::new(asked, true).unwrap();
            assert_eq!(layout.mem_size, asked);
            assert_eq!((layout.ring, layout.alloc), (Some(Gpa(asked)), asked + UNIT));
        }
        let largest = Layout::new(MAX_MEMORY, true).unwrap();
        assert_eq!(largest.alloc, MAX_MEMORY);
        assert_eq!((largest.mem_size, largest.ring), (MAX_MEMORY - UNIT, Some(Gpa(0xffe0_0000))));
        assert_eq!(largest.adjusted, None);
    }
}
