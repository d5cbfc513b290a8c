//! Port 0x92 (Intel 82371AB §4.3, "Port 92 Register"): a fast reset, and address line 20. The other
//! port that resets a PC, 0xcf9, lies within PCI's configuration address register and belongs to
//! [`crate::modes::type1::pci`].

use crate::device::{Access, Device, Effect, Effects};

/// Bit 1 of port 0x92: address line 20 is on, which it is always.
const A20: u8 = 1 << 1;

/// The port.
#[derive(Debug, Clone, Default)]
pub struct Port92(u8);

impl Device for Port92 {
    fn name(&self) -> &str {
        "port 92"
    }

    fn read(&mut self, _: Access, _: &mut Effects) -> u64 {
        u64::from(self.0 | A20)
    }

    fn write(&mut self, _: Access, value: u64, effects: &mut Effects) {
        let [value, ..] = value.to_le_bytes();
        let rises = value & 1 != 0 && self.0 & 1 == 0;
        self.0 = value & !1;
        if rises {
            effects.push(Effect::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_bit_resets() {
        for value in 0..=255u8 {
            let mut effects = Effects::new();
            let access = Access { offset: 0, width: crate::device::Width::Byte };
            Port92::default().write(access, value.into(), &mut effects);
            let resets = effects.into_iter().any(|effect| matches!(effect, Effect::Reset));
            assert_eq!(resets, value & 1 != 0, "{value:#x}");
        }
    }
}
