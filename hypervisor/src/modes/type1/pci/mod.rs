//! PCI: configuration space, BARs, interrupts, the host bridge and the LPC bridge of the machine.
//!
//! Order: [`PciBus::new`]; each [`Function`] is put into a slot; the bus is attached to the
//! board's ports and addresses ([`attach`]); [`PciBus::assign`] gives the BARs addresses where no
//! firmware does. From then on the guest moves them.
//!
//! Sources: PCI Local Bus 3.0 (configuration space, INTx, MSI-X), PCI Express 5.0 §7.2.2 (ECAM),
//! Intel 3 Series Express Chipset (host bridge), Intel ICH9 (LPC bridge).
//!
//! Lock order: a bus of [`crate::device`], dropped; the ports' or ECAM's device; a function; its
//! device behind a BAR (only for accesses through configuration space); its [`Interrupts`], a
//! leaf.

mod attach;
mod bar;
mod bus;
mod capability;
mod config;
mod ecam;
mod function;
mod host_bridge;
mod interrupts;
mod lpc;
mod msix;
mod ports;

pub use attach::{Machine, attach};
pub use bar::BarKind;
pub use bus::PciBus;
pub use capability::{Capability, Part};
pub use config::{ConfigSpace, command, register};
pub use function::{Extension, Function, Identity};
pub use host_bridge::ecam_range;
pub use interrupts::Interrupts;
pub use msix::{MsixBar, PBA_OFFSET, TABLE_SIZE};

use super::layout::PCI_LINES;

/// The line that pin `pin` (0 is INTA#) of the device in `slot` drives.
pub fn interrupt_line(slot: u8, pin: u8) -> u32 {
    let lines = PCI_LINES.end - PCI_LINES.start;
    PCI_LINES.start + (u32::from(slot) + u32::from(pin)) % lines
}

#[cfg(test)]
mod tests;
