//! Base address registers (PCI 3.0 §6.2.5.1).

use super::config::{ConfigSpace, command, register};
use crate::device::{DeviceRef, Effect, Effects, LayoutChange, Space};
use core::ops::Range;

/// What a BAR claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// Ports.
    Io,
    /// Addresses below 4 GiB.
    Memory32,
    /// Addresses anywhere; it takes two registers.
    Memory64,
}

const IO_SPACE: u8 = 1;
const TYPE_64: u8 = 0b100;
/// Smallest sizes: of memory a register's own bits leave 16 bytes; of ports 4.
const SMALLEST_MEMORY: u64 = 16;
const SMALLEST_IO: u64 = 4;
/// Largest size of ports (PCI 3.0 §6.2.5.1).
const LARGEST_IO: u64 = 256;
const LARGEST_32: u64 = 1 << 31;
const LARGEST_64: u64 = 1 << 40;

/// One BAR and the device behind it.
#[derive(Debug)]
pub struct Bar {
    kind: BarKind,
    size: u64,
    /// Offset of its register.
    at: usize,
    device: DeviceRef,
    shown: Option<Range<u64>>,
}

impl Bar {
    /// BAR number `index`, of `size` bytes rounded up to a power of two, in `config`.
    pub fn define(
        config: &mut ConfigSpace,
        index: usize,
        kind: BarKind,
        size: u64,
        device: DeviceRef,
    ) -> Self {
        let at = register::BAR0 + index.min(5) * 4;
        let (smallest, largest, flags) = match kind {
            BarKind::Io => (SMALLEST_IO, LARGEST_IO, IO_SPACE),
            BarKind::Memory32 => (SMALLEST_MEMORY, LARGEST_32, 0),
            BarKind::Memory64 => (SMALLEST_MEMORY, LARGEST_64, TYPE_64),
        };
        let size = size.clamp(smallest, largest).next_power_of_two();
        let mask = (!(size - 1)).to_le_bytes();
        // A port address has 16 bits; the register's upper half is wired to 0.
        let bytes = match kind {
            BarKind::Io => 2,
            BarKind::Memory32 => 4,
            BarKind::Memory64 => 8,
        };
        config.define(at, &[flags], &mask[..bytes]);
        Self { kind, size, at, device, shown: None }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What it claims.
    pub fn kind(&self) -> BarKind {
        self.kind
    }

    /// Writes an address to its register, as firmware would.
    pub fn set_address(&self, config: &mut ConfigSpace, address: u64) {
        let flags = u64::from(config.byte(self.at) & 0xf);
        let bytes = (address | flags).to_le_bytes();
        config.set(self.at, &bytes[..if self.kind == BarKind::Memory64 { 8 } else { 4 }]);
    }

    /// Where it answers, as the registers say. An address of 0 is no address.
    fn range(&self, config: &ConfigSpace) -> Option<Range<u64>> {
        let enabled = match self.kind {
            BarKind::Io => command::IO,
            _ => command::MEMORY,
        };
        if config.word(register::COMMAND) & enabled == 0 {
            return None;
        }
        let high = if self.kind == BarKind::Memory64 { config.long(self.at + 4) } else { 0 };
        let start = (u64::from(high) << 32 | u64::from(config.long(self.at))) & !(self.size - 1);
        let end = start.checked_add(self.size)?;
        (start != 0).then_some(start..end)
    }

    /// Moves the device where the registers say, if that has changed.
    pub fn follow(&mut self, config: &ConfigSpace, effects: &mut Effects) {
        let wanted = self.range(config);
        if wanted == self.shown {
            return;
        }
        self.shown.clone_from(&wanted);
        let space = if self.kind == BarKind::Io { Space::Pio } else { Space::Mmio };
        let device = self.device.clone();
        effects.push(Effect::ChangeLayout(LayoutChange { space, device, to: wanted }));
    }
}
