//! Networks between guests: a learning switch, and ports with queues.

pub mod port;
pub mod ring;
pub mod switch;

/// A hardware address.
pub type Mac = [u8; 6];

/// Bytes of an Ethernet header.
pub const HEADER: usize = 14;
/// The largest payload of a frame.
pub const MTU: u16 = 1500;
/// The largest frame: with a VLAN tag.
pub const MAX_FRAME: usize = HEADER + 4 + MTU as usize;
