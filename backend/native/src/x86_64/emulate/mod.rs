//! Carries out the instructions of [`super::decode`] on a vCPU's registers and a [`Bus`].
//!
//! An instruction is carried out from its beginning each time: what it reads from a device is
//! asked for by [`Stop::Ask`], and the next attempt gets the answer from the bus. Registers
//! change only once nothing can stop it any more.

mod alu;
mod execute;
#[cfg(test)]
mod tests;

pub(crate) use execute::{Element, Registers, execute, load, operand, plain_offset, port_element};

use super::decode::Seg;
use super::space::Miss;
use hypervisor::memory::Gpa;

/// Where an operand is: an offset in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub segment: Seg,
    pub offset: u64,
}

/// Why an instruction could not be carried out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A device has to be read first.
    Ask { gpa: Gpa, size: u8 },
    /// The guest gets an exception, or its page tables are nowhere.
    Miss(Miss),
    /// Memory that the guest may not access so.
    Denied(Gpa),
    /// Not carried out here: it crosses a page's end at a device, or is no such instruction.
    Unsupported,
}

impl From<Miss> for Stop {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

/// A guest's memory and devices.
pub(crate) trait Bus {
    /// Reads 1, 2, 4 or 8 bytes. `write`: they will be written too.
    fn read(&mut self, at: Spot, size: u8, write: bool) -> Result<u64, Stop>;

    /// Writes 1, 2, 4 or 8 bytes. An instruction writes once, and last.
    fn write(&mut self, at: Spot, size: u8, value: u64) -> Result<(), Stop>;
}
