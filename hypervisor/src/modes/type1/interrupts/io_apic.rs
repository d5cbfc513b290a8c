//! The I/O APIC: Intel 82093AA with 24 pins, with the EOI register of version 0x20.
//!
//! A pin's level is the line's assertion, whatever its polarity bit says. An edge on a masked pin
//! is lost (82093AA §3.2.4, "Interrupt Mask"); a level is sent when it is unmasked.

use super::Messages;
use crate::device::{Access, MsiMessage};
use crate::modes::type1::apic::Delivery;
use crate::modes::type1::layout::{IO_APIC_ID, LINES};
use alloc::sync::Arc;

const PINS: usize = LINES as usize;
/// Version 0x20, 24 entries.
const VERSION: u32 = 0x0017_0020;

/// A redirection table entry (82093AA §3.2.4): bits by name.
mod entry {
    pub const DELIVERY: u32 = 8;
    pub const LOGICAL: u64 = 1 << 11;
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASKED: u64 = 1 << 16;
    /// What can be written: not the delivery status, not the remote IRR, nothing reserved.
    pub const WRITABLE: u64 = 0xff00_0000_0001_afff;
}

/// An I/O APIC.
pub struct IoApic {
    select: u8,
    id: u8,
    entries: [u64; PINS],
    /// The pins' levels, by bit.
    levels: u32,
    watched: [u64; 4],
    messages: Arc<dyn Messages>,
}

impl IoApic {
    /// After power-up: everything is masked.
    pub fn new(messages: Arc<dyn Messages>) -> Self {
        Self {
            select: 0,
            id: IO_APIC_ID,
            entries: [entry::MASKED; PINS],
            levels: 0,
            watched: [0; 4],
            messages,
        }
    }

    /// Back to that; the pins keep their levels.
    pub fn reset(&mut self) {
        self.select = 0;
        self.id = IO_APIC_ID;
        self.entries = [entry::MASKED; PINS];
        self.watch();
    }

    /// A pin's level.
    pub fn set_pin(&mut self, pin: u32, asserted: bool) {
        let Some(index) = usize::try_from(pin).ok().filter(|index| *index < PINS) else { return };
        let (bit, before) = (1 << index, self.levels);
        if asserted {
            self.levels |= bit;
        } else {
            self.levels &= !bit;
        }
        if asserted && before & bit == 0 {
            self.service(index);
        }
    }

    /// Sends a pin's interrupt, where its entry lets it.
    fn service(&mut self, index: usize) {
        let e = self.entries[index];
        if e & (entry::MASKED | entry::REMOTE_IRR) != 0 {
            return;
        }
        if is_level(e) {
            self.entries[index] |= entry::REMOTE_IRR;
        }
        let low = |bits: u64| u32::try_from(bits & 0xffff_ffff).unwrap_or(0);
        let logical = if e & entry::LOGICAL != 0 { 1 << 2 } else { 0 };
        let trigger = if is_level(e) { 0xc000 } else { 0 };
        self.messages.msi(MsiMessage {
            device: 0,
            address: 0xfee0_0000 | (e >> 56) << 12 | logical,
            data: low(e & 0x7ff) | trigger,
        });
    }

    /// A level-triggered interrupt has been served: what is still asserted is sent again.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for index in 0..PINS {
            let e = self.entries[index];
            if e & entry::REMOTE_IRR != 0 && e.to_le_bytes()[0] == vector {
                self.entries[index] &= !entry::REMOTE_IRR;
                if self.levels >> index & 1 != 0 {
                    self.service(index);
                }
            }
        }
    }

    /// Tells which vectors' ends it waits for.
    fn watch(&mut self) {
        let mut vectors = [0u64; 4];
        for e in self.entries.iter().filter(|e| is_level(**e)) {
            let [vector, ..] = e.to_le_bytes();
            vectors[usize::from(vector >> 6)] |= 1 << (vector & 63);
        }
        if core::mem::replace(&mut self.watched, vectors) != vectors {
            self.messages.watch_ends(vectors);
        }
    }

    /// Reads IOREGSEL at 0 or IOWIN at 0x10.
    pub fn read(&self, access: Access) -> u32 {
        match access.offset {
            0x00 => self.select.into(),
            0x10 => self.register(),
            _ => 0,
        }
    }

    fn register(&self) -> u32 {
        match self.select {
            0 | 2 => u32::from(self.id) << 24,
            1 => VERSION,
            select => {
                let Some((index, high)) = place(select) else { return 0 };
                let e = self.entries[index];
                u32::try_from(if high { e >> 32 } else { e & 0xffff_ffff }).unwrap_or(0)
            }
        }
    }

    /// Writes IOREGSEL, IOWIN, or the EOI register at 0x40.
    pub fn write(&mut self, access: Access, value: u32) {
        let [low, .., id] = value.to_le_bytes();
        match access.offset {
            0x00 => self.select = low,
            0x10 if self.select == 0 => self.id = id & 0xf,
            0x10 => self.set_register(value),
            0x40 => self.end_of_interrupt(low),
            _ => {}
        }
    }

    fn set_register(&mut self, value: u32) {
        let Some((index, high)) = place(self.select) else { return };
        let before = self.entries[index];
        let value = u64::from(value);
        let mut e =
            if high { before & 0xffff_ffff | value << 32 } else { before & !0xffff_ffff | value };
        e = e & entry::WRITABLE | before & entry::REMOTE_IRR;
        if !is_level(e) {
            // Made edge-triggered, it forgets that an interrupt is being served: older systems
            // end interrupts so.
            e &= !entry::REMOTE_IRR;
        }
        self.entries[index] = e;
        self.watch();
        if is_level(e) && self.levels >> index & 1 != 0 {
            self.service(index);
        }
    }
}

/// The entry that an index register names, and whether its upper half.
fn place(select: u8) -> Option<(usize, bool)> {
    let offset = select.checked_sub(0x10)?;
    let index = usize::from(offset / 2);
    (index < PINS).then_some((index, offset & 1 != 0))
}

/// Whether its interrupts wait for their end. NMI, INIT and the like are edges whatever it says.
fn is_level(e: u64) -> bool {
    let bits = u32::try_from(e >> entry::DELIVERY & 7).unwrap_or(0);
    let by_vector = matches!(Delivery::from_bits(bits), Delivery::Fixed | Delivery::Lowest);
    e & entry::LEVEL != 0 && by_vector
}
