//! Numbers that a fuzzer hits: small ones, edges, addresses near the ends of memory.

use arbitrary::Arbitrary;

/// A number that a guest could choose.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Word {
    /// A small one.
    Small(u16),
    /// This far from the start of memory.
    FromStart(i16),
    /// This far from the end of memory.
    FromEnd(i16),
    /// This far from a power of two.
    Power(u8, i8),
    /// This far from zero, wrapping around.
    Wrapping(i8),
    /// Any.
    Any(u64),
}

impl Word {
    /// The number, for memory at `start..end`.
    pub fn get(self, start: u64, end: u64) -> u64 {
        match self {
            Self::Small(value) => value.into(),
            Self::FromStart(offset) => start.wrapping_add_signed(offset.into()),
            Self::FromEnd(offset) => end.wrapping_add_signed(offset.into()),
            Self::Power(bit, offset) => (1u64 << (bit % 64)).wrapping_add_signed(offset.into()),
            Self::Wrapping(value) => 0u64.wrapping_add_signed(value.into()),
            Self::Any(value) => value,
        }
    }
}
