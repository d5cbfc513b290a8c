//! The list of capabilities (PCI 3.0 §6.7): each says where the next one is.

use super::config::{ConfigSpace, SIZE, register};
use alloc::vec::Vec;

/// Where the list begins: behind the header.
const FIRST: u8 = 0x40;
/// Bit of the status register: there is a list.
const HAS_LIST: u8 = 1 << 4;

/// One capability behind its two-byte header: its bytes at reset and the bits that may be
/// written.
#[derive(Debug, Clone)]
pub struct Capability {
    /// Its ID.
    pub id: u8,
    /// What follows the header.
    pub body: Vec<Part>,
}

/// Some bytes of a capability.
#[derive(Debug, Clone)]
pub struct Part {
    /// At reset.
    pub reset: Vec<u8>,
    /// Bits that may be written.
    pub writable: Vec<u8>,
}

impl Part {
    /// Bytes that nobody can write.
    pub fn fixed(bytes: &[u8]) -> Self {
        Self { reset: bytes.to_vec(), writable: alloc::vec![0; bytes.len()] }
    }

    /// Bytes that are 0 at reset, of which these bits can be written.
    pub fn writable(bits: &[u8]) -> Self {
        Self { reset: alloc::vec![0; bits.len()], writable: bits.to_vec() }
    }
}

/// Appends capabilities to a configuration space, one after the other.
#[derive(Debug)]
pub struct List {
    /// Where the offset of the next one goes.
    link: usize,
    next: u8,
}

impl Default for List {
    fn default() -> Self {
        Self { link: register::CAPABILITIES, next: FIRST }
    }
}

impl List {
    /// Adds a capability and returns its offset; `None` where there is no room for it.
    pub fn add(&mut self, config: &mut ConfigSpace, capability: &Capability) -> Option<usize> {
        let at = usize::from(self.next);
        let length: usize = capability.body.iter().map(|part| part.reset.len()).sum();
        let end = at + 2 + length;
        if end > SIZE {
            return None;
        }
        config.define(at, &[capability.id, 0], &[0, 0]);
        let mut offset = at + 2;
        for part in &capability.body {
            config.define(offset, &part.reset, &part.writable);
            offset += part.reset.len();
        }
        config.set(self.link, &[self.next]);
        config.set(register::STATUS, &[HAS_LIST]);
        // Full: the next offset is 256, which no capability can have.
        self.link = at + 1;
        self.next = u8::try_from(end.next_multiple_of(4)).unwrap_or(u8::MAX);
        Some(at)
    }
}
