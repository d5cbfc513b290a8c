//! Configuration mechanism 1 (PCI 3.0 §3.2.2.3.2) at ports 0xcf8 to 0xcff, and among them the
//! reset control register of a PC's chipset at 0xcf9.

use super::bus::{PciBus, Place};
use crate::device::{Access, Device, Effect, Effects, Width};
use crate::modes::type1::layout::RESET_PORT;
use alloc::sync::Arc;
use core::ops::Range;

/// Its ports.
pub const PORTS: Range<u64> = 0xcf8..0xd00;

const ADDRESS: u64 = 0;
const RESET: u64 = RESET_PORT as u64 - PORTS.start;
const DATA: u64 = 4;

/// Bit of the address register.
const ENABLED: u32 = 1 << 31;
/// Bits of the address register that exist.
const ADDRESS_BITS: u32 = ENABLED | 0x00ff_fffc;
/// Bits of the reset control register: system reset, and go.
const RESET_BITS: u8 = 0b1110;
const RESET_CPU: u8 = 1 << 2;

/// The device.
#[derive(Debug)]
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    address: u32,
    reset: u8,
}

impl ConfigPorts {
    /// The ports of this bus.
    pub fn new(bus: Arc<PciBus>) -> Self {
        Self { bus, address: 0, reset: 0 }
    }

    /// As after power-on.
    pub(super) fn reset(&mut self) {
        (self.address, self.reset) = (0, 0);
    }

    /// What the data port shows at an offset. An access that crosses its end shows nothing.
    fn place(&self, access: Access) -> Option<Place> {
        let within = access.offset.checked_sub(DATA)?;
        if self.address & ENABLED == 0 || within + access.width.bytes() > 4 {
            return None;
        }
        let [register, number, bus, _] = self.address.to_le_bytes();
        let register = usize::from(register) + usize::try_from(within).ok()?;
        Some(Place { bus, number, register })
    }
}

impl Device for ConfigPorts {
    fn name(&self) -> &str {
        "PCI configuration ports"
    }

    fn read(&mut self, access: Access, effects: &mut Effects) -> u64 {
        match (access.offset, access.width) {
            (ADDRESS, Width::Long) => self.address.into(),
            (RESET, Width::Byte) => self.reset.into(),
            _ => match self.place(access) {
                Some(place) => self.bus.read(place, access.width, effects),
                None => access.width.mask(),
            },
        }
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects) {
        let [a, b, c, d, ..] = value.to_le_bytes();
        match (access.offset, access.width) {
            (ADDRESS, Width::Long) => {
                self.address = u32::from_le_bytes([a, b, c, d]) & ADDRESS_BITS;
            }
            (RESET, Width::Byte) => {
                let starts = a & RESET_CPU != 0 && self.reset & RESET_CPU == 0;
                self.reset = a & RESET_BITS;
                if starts {
                    self.reset &= !RESET_CPU;
                    effects.push(Effect::Reset);
                }
            }
            _ => {
                if let Some(place) = self.place(access) {
                    self.bus.write(place, access.width, value, effects);
                }
            }
        }
    }
}
