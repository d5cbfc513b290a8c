//! PCI.

use super::layout::PCI_LINES;

/// The line that pin `pin` (0 is INTA#) of the device in `slot` drives.
pub fn interrupt_line(slot: u8, pin: u8) -> u32 {
    let lines = PCI_LINES.end - PCI_LINES.start;
    PCI_LINES.start + (u32::from(slot) + u32::from(pin)) % lines
}
