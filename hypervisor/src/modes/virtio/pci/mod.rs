//! virtio over PCI (VIRTIO 1.3 §4.1): a modern device without the legacy interface.
//!
//! Order: [`function`] makes the PCI function; its transport is kept by whoever tells the device
//! of what comes from outside. All structures are in BAR 0, each in a page of its own; the MSI-X
//! table is BAR 1.

mod registers;
mod window;

pub use registers::Registers;

use super::{Transport, VirtioDevice};
use crate::device::DeviceRef;
use crate::memory::GuestMemory;
use crate::modes::type1::pci::{BarKind, Capability, Function, Identity, Interrupts, Part};
use crate::sync::Mutex;
use alloc::sync::Arc;
use alloc::vec::Vec;
use window::Window;

/// VIRTIO 1.3 §4.1.2: vendor, and what is added to a device's ID.
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
/// Not a transitional device.
const REVISION: u8 = 1;
const SUBSYSTEM: (u16, u16) = (VENDOR, 0x1100);

/// Capability ID of vendors.
const VENDOR_CAPABILITY: u8 = 0x09;
const TABLE_BAR: u8 = 1;

/// Where the structures are in BAR 0.
pub(super) mod place {
    /// Common configuration.
    pub const COMMON: u32 = 0x0000;
    /// Its size.
    pub const COMMON_SIZE: u32 = 0x38;
    /// Interrupt status.
    pub const ISR: u32 = 0x1000;
    /// Device-specific configuration.
    pub const DEVICE: u32 = 0x2000;
    /// Notifications.
    pub const NOTIFY: u32 = 0x3000;
    /// Sizes of the last two.
    pub const SIZE: u32 = 0x1000;
    /// Bytes between the places of two queues' notifications.
    pub const NOTIFY_MULTIPLIER: u32 = 4;
    /// Size of the BAR.
    pub const BAR_SIZE: u32 = 0x4000;
}

/// Kinds of structures.
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Makes a PCI function of a device whose interrupts are `interrupts`; one vector for each queue
/// and one for the configuration are useful.
pub fn function(
    device: Arc<dyn VirtioDevice>,
    memory: Arc<GuestMemory>,
    interrupts: Arc<Interrupts>,
) -> (Function, Arc<Transport>) {
    let identity = Identity {
        vendor: VENDOR,
        device: FIRST_DEVICE + device.id(),
        revision: REVISION,
        class: device.class(),
        subsystem: SUBSYSTEM,
    };
    let transport = Arc::new(Transport::new(device, memory, interrupts.clone()));
    let registers = Arc::new(Mutex::new(Registers::new(transport.clone())));
    let mut function = Function::new(&identity);
    let bar = DeviceRef::shared(registers.clone());
    function.add_bar(0, BarKind::Memory32, place::BAR_SIZE.into(), bar);
    function.add_interrupts(interrupts, TABLE_BAR);
    let multiplier = place::NOTIFY_MULTIPLIER.to_le_bytes();
    for (kind, offset, length, more) in [
        (COMMON_CFG, place::COMMON, place::COMMON_SIZE, &[][..]),
        (NOTIFY_CFG, place::NOTIFY, place::SIZE, &multiplier[..]),
        (ISR_CFG, place::ISR, 1, &[]),
        (DEVICE_CFG, place::DEVICE, place::SIZE, &[]),
    ] {
        function.add_capability(&structure(kind, offset, length, more));
    }
    let window = function.add_capability(&window::capability());
    function.set_extension(Window { at: window, registers, transport: transport.clone() });
    (function, transport)
}

/// `struct virtio_pci_cap` of a structure in BAR 0.
fn structure(kind: u8, offset: u32, length: u32, more: &[u8]) -> Capability {
    let size = u8::try_from(16 + more.len()).unwrap_or(u8::MAX);
    let mut body = Vec::from([size, kind, 0, 0, 0, 0]);
    body.extend_from_slice(&offset.to_le_bytes());
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(more);
    Capability { id: VENDOR_CAPABILITY, body: Vec::from([Part::fixed(&body)]) }
}

#[cfg(test)]
mod tests;
