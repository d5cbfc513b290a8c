//! What an interrupt message says, and its form as a message-signalled interrupt (Intel SDM
//! vol. 3 §11.11) and as an interrupt command (§11.6.1).

use crate::device::MsiMessage;

/// How an interrupt is delivered (Intel SDM vol. 3 §11.6.1, "Delivery Mode").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To all that are named.
    Fixed,
    /// To one of those that are named.
    Lowest,
    /// System management: this machine has none, so it vanishes.
    Smi,
    /// Non-maskable.
    Nmi,
    /// Puts the processor into its state after INIT.
    Init,
    /// Starts a processor that waits after INIT; the vector names the page.
    Startup,
    /// As if by an external 8259.
    External,
    /// Not defined.
    Reserved,
}

impl Delivery {
    /// By the three bits of its encoding.
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::Lowest,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::Startup,
            7 => Self::External,
            _ => Self::Reserved,
        }
    }
}

/// Whom an interrupt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The processor with this APIC ID.
    Physical(u32),
    /// All that this logical destination names: 8 bits from an xAPIC, the I/O APIC or a message,
    /// 32 bits from an x2APIC.
    Logical {
        /// The destination.
        mask: u32,
        /// Whether it is an x2APIC's.
        wide: bool,
    },
    /// Everybody.
    All,
    /// Everybody but this processor.
    Others(u32),
}

/// An interrupt on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupt {
    /// Whom it is for.
    pub destination: Destination,
    /// How.
    pub delivery: Delivery,
    /// Its vector.
    pub vector: u8,
    /// Whether it is level-triggered: its end is told to the I/O APIC.
    pub level: bool,
}

/// Broadcast in 8 bits of a physical destination.
const BROADCAST: u32 = 0xff;

impl From<MsiMessage> for Interrupt {
    fn from(message: MsiMessage) -> Self {
        let [a0, a1, a2, _, _, _, _, _] = message.address.to_le_bytes();
        let id = u32::from(a1 >> 4) | u32::from(a2 & 0xf) << 4;
        let destination = match a0 & 1 << 2 {
            0 if id == BROADCAST => Destination::All,
            0 => Destination::Physical(id),
            _ => Destination::Logical { mask: id, wide: false },
        };
        let [vector, ..] = message.data.to_le_bytes();
        Self {
            destination,
            delivery: Delivery::from_bits(message.data >> 8),
            vector,
            level: message.data & 1 << 15 != 0,
        }
    }
}

impl Interrupt {
    /// The interrupt that an interrupt command sends: `command` is the register's low half, `to`
    /// the destination (8 bits of an xAPIC, 32 of an x2APIC), `from` the sender's ID. `None` for
    /// INIT level de-assert, which changes nothing since the first APICs.
    pub fn from_command(command: u32, to: u32, wide: bool, from: u32) -> Option<Self> {
        let broadcast = if wide { u32::MAX } else { BROADCAST };
        let logical = command & 1 << 11 != 0;
        let destination = match command >> 18 & 3 {
            1 => Destination::Physical(from),
            2 => Destination::All,
            3 => Destination::Others(from),
            _ if logical => Destination::Logical { mask: to, wide },
            _ if to == broadcast => Destination::All,
            _ => Destination::Physical(to),
        };
        let delivery = Delivery::from_bits(command >> 8);
        let (assert, level) = (command & 1 << 14 != 0, command & 1 << 15 != 0);
        if delivery == Delivery::Init && level && !assert {
            return None;
        }
        let [vector, ..] = command.to_le_bytes();
        Some(Self { destination, delivery, vector, level: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_commands_are_read() {
        let message = MsiMessage { device: 0, address: 0xfee0_5004, data: 0x8131 };
        let expected = Interrupt {
            destination: Destination::Logical { mask: 5, wide: false },
            delivery: Delivery::Lowest,
            vector: 0x31,
            level: true,
        };
        assert_eq!(Interrupt::from(message), expected);
        let physical = MsiMessage { address: 0xfeef_f000, ..message };
        assert_eq!(Interrupt::from(physical).destination, Destination::All);

        let to = |command, id, wide| Interrupt::from_command(command, id, wide, 7);
        assert_eq!(to(0xc500, 3, false).map(|i| i.delivery), Some(Delivery::Init));
        assert_eq!(to(0x8500, 3, false), None);
        let startup = to(0x4699, 3, true).unwrap();
        assert_eq!((startup.delivery, startup.vector), (Delivery::Startup, 0x99));
        assert_eq!(startup.destination, Destination::Physical(3));
        let destination = |command, id, wide| to(command, id, wide).map(|i| i.destination);
        assert_eq!(destination(0x30, 0xff, false), Some(Destination::All));
        assert_eq!(destination(0x30, 0xff, true), Some(Destination::Physical(0xff)));
        assert_eq!(destination(0x30, u32::MAX, true), Some(Destination::All));
        assert_eq!(destination(0x4_0030, 1, true), Some(Destination::Physical(7)));
        assert_eq!(destination(0x8_0030, 1, true), Some(Destination::All));
        assert_eq!(destination(0xc_0030, 1, true), Some(Destination::Others(7)));
    }
}
