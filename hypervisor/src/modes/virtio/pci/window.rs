//! `VIRTIO_PCI_CAP_PCI_CFG` (VIRTIO 1.3 §4.1.4.9): BAR 0 through configuration space, for
//! firmware that cannot reach the BAR.

use super::{PCI_CFG, Registers, VENDOR_CAPABILITY, place};
use crate::device::{Access, Device, Effects, Width};
use crate::modes::type1::pci::{Capability, ConfigSpace, Extension, Part, command, register};
use crate::modes::virtio::Transport;
use crate::sync::Mutex;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// Offsets in the capability.
const BAR: usize = 4;
const OFFSET: usize = 8;
const LENGTH: usize = 12;
const DATA: usize = 16;

/// The capability: BAR, offset, length and data can be written.
pub fn capability() -> Capability {
    let body = Vec::from([
        Part::fixed(&[20, PCI_CFG]),
        Part::writable(&[0xff]),
        Part::fixed(&[0; 3]),
        Part::writable(&[0xff; 12]),
    ]);
    Capability { id: VENDOR_CAPABILITY, body }
}

/// What the function does at that capability, at its command register, and at a reset.
pub struct Window {
    /// Where the capability is.
    pub at: Option<usize>,
    /// What is behind BAR 0. Lock order: the function, then this.
    pub registers: Arc<Mutex<Registers>>,
    /// The device.
    pub transport: Arc<Transport>,
}

impl Window {
    /// The access that a touch of the data is, if it is one.
    fn access(&self, config: &ConfigSpace, touched: &Range<usize>) -> Option<(usize, Access)> {
        let at = self.at?;
        let data = at + DATA;
        if touched.start >= data + 4 || data >= touched.end || config.byte(at + BAR) != 0 {
            return None;
        }
        let length = u8::try_from(config.long(at + LENGTH)).ok()?;
        let width = Width::from_bytes(length).filter(|width| *width <= Width::Long)?;
        let offset = u64::from(config.long(at + OFFSET));
        let inside = offset.is_multiple_of(width.bytes())
            && offset + width.bytes() <= u64::from(place::BAR_SIZE);
        inside.then_some((data, Access { offset, width }))
    }
}

impl Window {
    fn follow_master(&self, config: &ConfigSpace, effects: &mut Effects) {
        let master = config.word(register::COMMAND) & command::MASTER != 0;
        self.transport.set_master(master, effects);
    }
}

impl Extension for Window {
    fn reading(&mut self, config: &mut ConfigSpace, range: Range<usize>, effects: &mut Effects) {
        if let Some((data, access)) = self.access(config, &range) {
            let value = self.registers.lock().read(access, effects);
            config.set(data, &value.to_le_bytes()[..access.width as usize]);
        }
    }

    fn written(&mut self, config: &mut ConfigSpace, range: Range<usize>, effects: &mut Effects) {
        if range.start < register::STATUS && register::COMMAND < range.end {
            self.follow_master(config, effects);
        }
        if let Some((data, access)) = self.access(config, &range) {
            let value = u64::from(config.long(data)) & access.width.mask();
            self.registers.lock().write(access, value, effects);
        }
    }

    fn reset(&mut self, config: &mut ConfigSpace, effects: &mut Effects) {
        self.follow_master(config, effects);
        self.transport.reset(effects);
    }
}
