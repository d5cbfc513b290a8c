//! The 256 bytes of a function's configuration space: what they read as, and which bits a guest
//! may write or clear. One table says it all; nothing else decides what a write does to a bit.

use crate::device::Width;

/// Bytes of a conventional function's configuration space.
pub const SIZE: usize = 256;

/// Offsets in the header (PCI 3.0 §6.1).
pub mod register {
    /// Vendor and device.
    pub const ID: usize = 0x00;
    /// Command.
    pub const COMMAND: usize = 0x04;
    /// Status.
    pub const STATUS: usize = 0x06;
    /// Revision and class code.
    pub const CLASS: usize = 0x08;
    /// Cache line size.
    pub const CACHE_LINE: usize = 0x0c;
    /// The first of six base address registers.
    pub const BAR0: usize = 0x10;
    /// Behind the last.
    pub const BARS_END: usize = 0x28;
    /// Subsystem vendor and subsystem.
    pub const SUBSYSTEM: usize = 0x2c;
    /// First capability.
    pub const CAPABILITIES: usize = 0x34;
    /// Interrupt line.
    pub const INTERRUPT_LINE: usize = 0x3c;
    /// Interrupt pin.
    pub const INTERRUPT_PIN: usize = 0x3d;
}

/// Bits of the command register.
pub mod command {
    /// I/O BARs answer.
    pub const IO: u16 = 1 << 0;
    /// Memory BARs answer.
    pub const MEMORY: u16 = 1 << 1;
    /// It may write to memory.
    pub const MASTER: u16 = 1 << 2;
    /// It drives no INTx.
    pub const NO_INTX: u16 = 1 << 10;
}

/// Configuration space.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    /// Bits that take what is written.
    writable: [u8; SIZE],
    /// Bits that a written 1 clears.
    clearable: [u8; SIZE],
}

impl Default for ConfigSpace {
    fn default() -> Self {
        Self { bytes: [0; SIZE], writable: [0; SIZE], clearable: [0; SIZE] }
    }
}

impl ConfigSpace {
    /// Defines a register: its value at reset and the bits that a guest may write. Bytes beyond
    /// the end are left out.
    pub fn define(&mut self, offset: usize, reset: &[u8], writable: &[u8]) {
        put(&mut self.bytes, offset, reset);
        put(&mut self.writable, offset, writable);
    }

    /// Defines bits that a written 1 clears.
    pub fn define_clearable(&mut self, offset: usize, bits: &[u8]) {
        put(&mut self.clearable, offset, bits);
    }

    /// Sets bytes from the device's side.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.bytes, offset, bytes);
    }

    /// A byte; all ones beyond the end.
    pub fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0xff)
    }

    /// 16 bits.
    pub fn word(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset + 1)])
    }

    /// 32 bits.
    pub fn long(&self, offset: usize) -> u32 {
        u32::from(self.word(offset + 2)) << 16 | u32::from(self.word(offset))
    }

    /// What a guest reads.
    pub fn read(&self, offset: usize, width: Width) -> u64 {
        (0..width as usize).rev().fold(0, |value, i| value << 8 | u64::from(self.byte(offset + i)))
    }

    /// Does to the bits what a guest's write does.
    pub fn write(&mut self, offset: usize, width: Width, value: u64) {
        for (i, new) in value.to_le_bytes().into_iter().take(width as usize).enumerate() {
            let at = offset + i;
            let (Some(byte), Some(writable), Some(clearable)) =
                (self.bytes.get_mut(at), self.writable.get(at), self.clearable.get(at))
            else {
                return;
            };
            *byte = ((*byte & !writable) | (new & writable)) & !(new & clearable);
        }
    }
}

fn put(to: &mut [u8; SIZE], offset: usize, from: &[u8]) {
    for (to, from) in to.iter_mut().skip(offset).zip(from) {
        *to = *from;
    }
}
