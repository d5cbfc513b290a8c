//! ECAM (PCI Express 5.0 §7.2.2): configuration space as memory, 4 KiB for each function.

use super::bus::{PciBus, Place};
use crate::device::{Access, Device, Effects};
use alloc::sync::{Arc, Weak};

/// The device. It does not keep the bus alive, which holds it behind the host bridge.
#[derive(Debug)]
pub struct Ecam(pub Weak<PciBus>);

impl Ecam {
    fn place(&self, access: Access) -> Option<(Arc<PciBus>, Place)> {
        let [low, middle, high, bus_high, ..] = access.offset.to_le_bytes();
        debug_assert_eq!(bus_high & 0xf0, 0);
        let register = usize::from(middle & 0xf) << 8 | usize::from(low);
        let place =
            Place { bus: bus_high << 4 | high >> 4, number: high << 4 | middle >> 4, register };
        // An access across the end of a function's registers belongs to none.
        let inside = register + access.width as usize <= 0x1000;
        Some((self.0.upgrade().filter(|_| inside)?, place))
    }
}

impl Device for Ecam {
    fn name(&self) -> &str {
        "ECAM"
    }

    fn read(&mut self, access: Access, effects: &mut Effects) -> u64 {
        match self.place(access) {
            Some((bus, place)) => bus.read(place, access.width, effects),
            None => access.width.mask(),
        }
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects) {
        if let Some((bus, place)) = self.place(access) {
            bus.write(place, access.width, value, effects);
        }
    }
}
