//! Joins PCI to a board.

use super::bus::PciBus;
use super::ecam::Ecam;
use super::host_bridge::{ecam_range, host_bridge};
use super::lpc::{self, lpc_bridge};
use super::ports::{self, ConfigPorts};
use crate::device::{BusError, DeviceRef, Devices, Effects};
use crate::sync::Mutex;
use alloc::sync::Arc;
use core::ops::Range;

/// The machine's PCI.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Bus 0, with the two bridges.
    pub bus: Arc<PciBus>,
    ports: Arc<Mutex<ConfigPorts>>,
}

impl Machine {
    /// Where configuration space is mapped now, for the tables.
    pub fn ecam(&self) -> Option<Range<u64>> {
        ecam_range(self.bus.function(0)?.lock().config())
    }

    /// Everything as after power-on. Apply the effects.
    pub fn reset(&self) -> Effects {
        let mut effects = Effects::new();
        self.ports.lock().reset();
        self.bus.reset(&mut effects);
        effects
    }
}

/// Attaches PCI with its two bridges to the machine's ports and addresses. With `firmware`, ECAM
/// is where firmware puts it; else it is where [`crate::modes::type1::layout::ECAM`] says from the
/// start.
///
/// # Errors
/// If the ports or addresses are taken.
pub fn attach(devices: &Devices, firmware: bool) -> Result<Machine, BusError> {
    let bus = Arc::new(PciBus::new());
    let ecam = DeviceRef::new(Ecam(Arc::downgrade(&bus)));
    bus.insert(0, host_bridge(ecam, !firmware));
    bus.insert(lpc::SLOT, lpc_bridge());
    let ports = Arc::new(Mutex::new(ConfigPorts::new(bus.clone())));
    devices.pio.insert(ports::PORTS, DeviceRef::shared(ports.clone()))?;
    let machine = Machine { bus, ports };
    // A reset shows what is to be shown.
    devices.apply(machine.reset());
    Ok(machine)
}
