//! What is behind BAR 0: common configuration, interrupt status, device configuration,
//! notifications (VIRTIO 1.3 §4.1.4.3 to §4.1.4.6).

use super::place;
use crate::device::{Access, Device, Effects, Width};
use crate::modes::type1::pci::Interrupts;
use crate::modes::virtio::Transport;
use crate::modes::virtio::transport::{NO_VECTOR, Slot, State};
use alloc::sync::Arc;

/// Bytes of `struct virtio_pci_common_cfg`.
const COMMON_SIZE: usize = 0x38;

/// Offsets in `struct virtio_pci_common_cfg`.
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: usize = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: usize = 0x12;
    pub const STATUS: u64 = 0x14;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: usize = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    pub const END: u64 = super::COMMON_SIZE as u64;
}

/// The structures.
#[derive(Debug)]
pub struct Registers {
    transport: Arc<Transport>,
}

impl Registers {
    /// Of this device.
    pub fn new(transport: Arc<Transport>) -> Self {
        Self { transport }
    }

    fn read_common(&self, offset: u64, width: Width) -> u64 {
        let features = self.transport.features();
        let image = self.transport.with(|state| common_image(state, features));
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = image.get(at..).unwrap_or_default().iter().take(width as usize);
        bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Fields are written whole; of a 64-bit field each half may be written alone.
    fn write_common(&self, offset: u64, width: Width, value: u64, effects: &mut Effects) {
        match width {
            Width::Byte if offset == common::STATUS => {
                self.transport.set_status(value.to_le_bytes()[0], effects);
            }
            Width::Word => self.write_word(offset, low16(value), effects),
            Width::Long => self.transport.with(|state| write_long(state, offset, low32(value))),
            Width::Quad => self.transport.with(|state| {
                write_long(state, offset, low32(value));
                write_long(state, offset + 4, low32(value >> 32));
            }),
            Width::Byte => {}
        }
    }

    fn write_word(&self, offset: u64, value: u16, effects: &mut Effects) {
        if offset == common::QUEUE_ENABLE {
            if value == 1 {
                self.transport.enable_queue(effects);
            }
            return;
        }
        let vector = if value < self.interrupts().vectors() { value } else { NO_VECTOR };
        self.transport.with(|state| match offset {
            common::CONFIG_VECTOR => state.config_vector = vector,
            common::QUEUE_SELECT => state.queue_select = value,
            common::QUEUE_VECTOR => {
                if let Some(slot) = state.selected() {
                    slot.vector = vector;
                }
            }
            common::QUEUE_SIZE => {
                if let Some(slot) = disabled(state) {
                    slot.layout.size = value.min(slot.max_size);
                }
            }
            _ => {}
        });
    }

    fn interrupts(&self) -> &Interrupts {
        self.transport.interrupts()
    }

    fn read_device(&self, offset: u64, width: Width) -> u64 {
        let mut bytes = [0; 8];
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        self.transport.device().read_config(at, &mut bytes[..width as usize]);
        u64::from_le_bytes(bytes)
    }
}

impl Device for Registers {
    fn name(&self) -> &str {
        self.transport.device().name()
    }

    fn read(&mut self, access: Access, effects: &mut Effects) -> u64 {
        let (structure, offset) = split(access.offset);
        match structure {
            place::COMMON => self.read_common(offset, access.width),
            place::ISR if offset == 0 => self.transport.take_isr(effects).into(),
            place::DEVICE => self.read_device(offset, access.width),
            _ => 0,
        }
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects) {
        let (structure, offset) = split(access.offset);
        match structure {
            place::COMMON if offset < common::END => {
                self.write_common(offset, access.width, value, effects);
            }
            place::NOTIFY => {
                let queue = offset / u64::from(place::NOTIFY_MULTIPLIER);
                self.transport.notify(usize::try_from(queue).unwrap_or(usize::MAX), effects);
            }
            _ => {}
        }
    }
}

/// The page of a structure and the offset in it.
fn split(offset: u64) -> (u32, u64) {
    (low32(offset & !0xfff), offset & 0xfff)
}

/// The structure as bytes.
fn common_image(state: &mut State, features: u64) -> [u8; COMMON_SIZE] {
    let mut image = [0; COMMON_SIZE];
    let mut put = |at: u64, bytes: &[u8]| {
        let at = usize::try_from(at).unwrap_or(0);
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    let at = |offset: usize| offset as u64;
    put(common::DEVICE_FEATURE_SELECT, &state.device_features_select.to_le_bytes());
    put(at(common::DEVICE_FEATURE), &half(features, state.device_features_select).to_le_bytes());
    put(common::DRIVER_FEATURE_SELECT, &state.driver_features_select.to_le_bytes());
    let accepted = half(state.driver_features, state.driver_features_select);
    put(common::DRIVER_FEATURE, &accepted.to_le_bytes());
    put(common::CONFIG_VECTOR, &state.config_vector.to_le_bytes());
    let queues = u16::try_from(state.queues.len()).unwrap_or(u16::MAX);
    put(at(common::NUM_QUEUES), &queues.to_le_bytes());
    put(common::STATUS, &[state.status]);
    put(common::QUEUE_SELECT, &state.queue_select.to_le_bytes());
    let index = state.queue_select;
    // A queue that does not exist has size 0.
    if let Some(slot) = state.selected() {
        put(common::QUEUE_SIZE, &slot.layout.size.to_le_bytes());
        put(common::QUEUE_VECTOR, &slot.vector.to_le_bytes());
        put(common::QUEUE_ENABLE, &u16::from(slot.enabled).to_le_bytes());
        put(at(common::QUEUE_NOTIFY_OFF), &index.to_le_bytes());
        put(common::QUEUE_DESC, &slot.layout.descriptors.to_le_bytes());
        put(common::QUEUE_DRIVER, &slot.layout.available.to_le_bytes());
        put(common::QUEUE_DEVICE, &slot.layout.used.to_le_bytes());
    }
    image
}

fn write_long(state: &mut State, offset: u64, value: u32) {
    match offset {
        common::DEVICE_FEATURE_SELECT => state.device_features_select = value,
        common::DRIVER_FEATURE_SELECT => state.driver_features_select = value,
        common::DRIVER_FEATURE => state.write_features(value),
        _ => {
            let Some(slot) = disabled(state) else { return };
            let address = match offset & !7 {
                common::QUEUE_DESC => &mut slot.layout.descriptors,
                common::QUEUE_DRIVER => &mut slot.layout.available,
                common::QUEUE_DEVICE => &mut slot.layout.used,
                _ => return,
            };
            let (value, other) = (u64::from(value), if offset & 4 == 0 { 32 } else { 0 });
            *address = (*address & (0xffff_ffff << other)) | (value << (32 - other));
        }
    }
}

/// The selected queue, as long as it may be set up.
fn disabled(state: &mut State) -> Option<&mut Slot> {
    state.selected().filter(|slot| !slot.enabled)
}

/// Bits 0 to 31 or 32 to 63; there are no others.
fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => low32(features),
        1 => low32(features >> 32),
        _ => 0,
    }
}

fn low32(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn low16(value: u64) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}
