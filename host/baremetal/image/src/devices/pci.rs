//! PCI configuration space by its two ports (PCI Local Bus 3.0 §3.2.2.3.2): the first 256 bytes of
//! each function, on every PC.

use crate::cpu::port::{ind, outd};
use alloc::vec::Vec;
use hypervisor::sync::Mutex;
use virtio_drivers::transport::pci::bus::{
    ConfigurationAccess, DeviceFunction, HeaderType, PciRoot,
};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
/// Offset of a bridge's bus numbers.
const BUSES: u8 = 0x18;

/// The two ports belong together.
static PORTS: Mutex<()> = Mutex::new(());

/// Access to all buses.
pub struct Ports;

fn address(function: DeviceFunction, offset: u8) -> u32 {
    let DeviceFunction { bus, device, function } = function;
    let place = u32::from(bus) << 16 | u32::from(device) << 11 | u32::from(function) << 8;
    1 << 31 | place | u32::from(offset & !3)
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        let _ports = PORTS.lock();
        // SAFETY: reading configuration space has no effect.
        unsafe {
            outd(ADDRESS, address(function, offset));
            ind(DATA)
        }
    }

    fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
        let _ports = PORTS.lock();
        // SAFETY: who configures a device knows what it does.
        unsafe {
            outd(ADDRESS, address(function, offset));
            outd(DATA, data);
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// All functions on all buses that the firmware has numbered.
pub fn functions() -> Vec<DeviceFunction> {
    let root = PciRoot::new(Ports);
    let mut all = Vec::new();
    let mut buses = alloc::vec![0u8];
    while let Some(bus) = buses.pop() {
        for (function, info) in root.enumerate_bus(bus) {
            all.push(function);
            if info.header_type == HeaderType::PciPciBridge {
                let [_, below, ..] = Ports.read_word(function, BUSES).to_le_bytes();
                // A bus below has a higher number: this ends.
                buses.extend(Some(below).filter(|below| *below > bus));
            }
        }
    }
    all.sort_unstable_by_key(|f| (f.bus, f.device, f.function));
    all
}
