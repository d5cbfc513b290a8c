//! virtio over PCI, with interrupts by MSI-X (VIRTIO 1.3 §4.1; PCI Local Bus 3.0 §6.8.2): what
//! `virtio-drivers` leaves out, around its own transport.

use super::dma::Dma;
use super::pci::Ports;
use crate::cpu::apic::vector;
use crate::cpu::local;
use core::sync::atomic::Ordering;
use host_baremetal::paging::Rights;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::transport::{
    DeviceStatus, DeviceType, InterruptStatus, Transport as VirtioTransport,
};
use virtio_drivers::{PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const VENDOR_CAPABILITY: u8 = 9;
const MSIX_CAPABILITY: u8 = 0x11;
/// A vendor capability's kind: the common configuration.
const COMMON: u16 = 1;
/// Registers of the common configuration.
const QUEUE_SELECT: usize = 0x16;
const QUEUE_VECTOR: usize = 0x1a;
/// MSI-X is on, and not masked as a whole.
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_MASK: u32 = 1 << 30;
/// Where messages to local APICs go (Intel SDM vol. 3 §12.11).
const MESSAGES: u32 = 0xfee0_0000;

/// A device's transport.
pub struct Transport {
    inner: PciTransport,
    /// The common configuration, where interrupts are set up.
    common: Option<*mut u8>,
}

// SAFETY: the registers are this device's, which one thread uses at a time.
unsafe impl Send for Transport {}

impl Transport {
    /// Opens a function, if it is a virtio device.
    pub fn open(function: DeviceFunction) -> Option<(DeviceType, Self)> {
        let mut root = PciRoot::new(Ports);
        let info = root.enumerate_bus(function.bus).find(|(at, _)| *at == function)?.1;
        let kind = virtio_device_type(&info)?;
        root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
        let common = interrupts(&mut root, function);
        let inner = PciTransport::new::<Dma, _>(&mut root, function).ok()?;
        Some((kind, Self { inner, common }))
    }

    /// Whether the device interrupts; else it has to be asked.
    pub fn interrupts(&self) -> bool {
        self.common.is_some()
    }
}

/// Turns MSI-X on, with one vector for all; gives the common configuration.
fn interrupts(root: &mut PciRoot<Ports>, function: DeviceFunction) -> Option<*mut u8> {
    let (mut common, mut msix) = (None, None);
    for capability in root.capabilities(function) {
        let [_, kind] = capability.private_header.to_le_bytes();
        match capability.id {
            VENDOR_CAPABILITY if u16::from(kind) == COMMON => common = Some(capability.offset),
            MSIX_CAPABILITY => msix = Some(capability.offset),
            _ => {}
        }
    }
    let (common, msix) = (common?, msix?);
    let bar = u8::try_from(Ports.read_word(function, common + 4) & 7).ok()?;
    let common = register(root, function, bar, Ports.read_word(function, common + 8), 0x40)?;
    let table = Ports.read_word(function, msix + 4);
    let entry = register(root, function, u8::try_from(table & 7).ok()?, table & !7, 16)?;
    let apic = local::this().apic.load(Ordering::Relaxed) & 0xff;
    let words = [MESSAGES | apic << 12, 0, u32::from(vector::DEVICE), 0];
    for (index, word) in words.into_iter().enumerate() {
        // SAFETY: the table's first entry, which is mapped.
        unsafe { entry.cast::<u32>().add(index).write_volatile(word) };
    }
    let control = Ports.read_word(function, msix);
    Ports.write_word(function, msix, (control | MSIX_ENABLE) & !MSIX_MASK);
    Some(common)
}

/// Maps registers in a base address register's memory.
fn register(
    root: &mut PciRoot<Ports>,
    function: DeviceFunction,
    bar: u8,
    offset: u32,
    length: u64,
) -> Option<*mut u8> {
    let info = root.bar_info(function, bar).ok()??;
    let (address, size) = info.memory_address_size()?;
    let inside = u64::from(offset) + length <= size;
    let at = address.checked_add(u64::from(offset)).filter(|_| inside)?;
    crate::memory::space::map_device(at, length, Rights::DEVICE)
}

impl VirtioTransport for Transport {
    fn device_type(&self) -> DeviceType {
        self.inner.device_type()
    }

    fn read_device_features(&mut self) -> u64 {
        self.inner.read_device_features()
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        self.inner.write_driver_features(driver_features);
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.inner.max_queue_size(queue)
    }

    fn notify(&mut self, queue: u16) {
        self.inner.notify(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        self.inner.get_status()
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.inner.set_status(status);
    }

    fn set_guest_page_size(&mut self, size: u32) {
        self.inner.set_guest_page_size(size);
    }

    fn requires_legacy_layout(&self) -> bool {
        self.inner.requires_legacy_layout()
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        if let Some(common) = self.common {
            // SAFETY: the common configuration's registers, mapped in `interrupts`. The queue is
            // not in use yet.
            unsafe {
                common.add(QUEUE_SELECT).cast::<u16>().write_volatile(queue);
                common.add(QUEUE_VECTOR).cast::<u16>().write_volatile(0);
            }
        }
        self.inner.queue_set(queue, size, descriptors, driver_area, device_area);
    }

    fn queue_unset(&mut self, queue: u16) {
        self.inner.queue_unset(queue);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.inner.queue_used(queue)
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.inner.ack_interrupt()
    }

    fn read_config_generation(&self) -> u32 {
        self.inner.read_config_generation()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        self.inner.read_config_space(offset)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        offset: usize,
        value: T,
    ) -> Result<()> {
        self.inner.write_config_space(offset, value)
    }
}
