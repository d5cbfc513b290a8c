//! DSDT: the root bridge of PCI, the devices behind LPC, processors, sleep states.
//!
//! The root bridge is a conventional one (PNP0A03): it has no PCIe ports, so there is nothing to
//! negotiate by `_OSC`.

use super::Facts;
use crate::modes::type1::layout::{COM1, COM1_LINE, PM1_EVENT, RTC_LINE, SLP_TYP_S5};
use crate::modes::type1::pci::interrupt_line;
use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Memory32Fixed, Name, Package,
    PackageBuilder, Path, ResourceTemplate, Scope, ZERO,
};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

const SLOTS: u8 = 32;
const PINS: u8 = 4;
/// `_ADR` of the LPC bridge: device 31, function 0.
const LPC: u32 = 31 << 16;

/// The table behind its header.
pub fn body(facts: &Facts) -> Vec<u8> {
    let mut body = Vec::new();
    root_bridge(facts, &mut body);
    reserved(facts, &mut body);
    for id in 0..facts.vcpus {
        processor(id, &mut body);
    }
    // The only sleep state.
    let s5 = Package::new(vec![&SLP_TYP_S5, &SLP_TYP_S5, &ZERO, &ZERO]);
    Name::new("\\_S5_".into(), &s5).to_aml_bytes(&mut body);
    body
}

fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(path), value)
}

fn root_bridge(facts: &Facts, body: &mut Vec<u8>) {
    let id = name("_HID", &EISAName::new("PNP0A03"));
    let uid = name("_UID", &ZERO);
    let bus = name("_BBN", &ZERO);
    let segment = name("_SEG", &ZERO);
    let resources = bridge_resources(facts);
    let resources = ResourceTemplate::new(resources.iter().map(AsRef::as_ref).collect());
    let resources = name("_CRS", &resources);
    let routing = name("_PRT", &routing());
    let lpc = lpc_devices();
    let bridge =
        Device::new("PCI0".into(), vec![&id, &uid, &bus, &segment, &resources, &routing, &lpc]);
    Scope::new("\\_SB_".into(), vec![&bridge]).to_aml_bytes(body);
}

/// What the root bridge passes on: all ports but those of configuration mechanism 1.
fn bridge_resources(facts: &Facts) -> Vec<Box<dyn Aml>> {
    let buses = facts.ecam.as_ref().map_or(256, |ecam| (ecam.end - ecam.start) >> 20);
    let last = u16::try_from(buses.clamp(1, 256) - 1).unwrap_or(0xff);
    let mut resources: Vec<Box<dyn Aml>> = vec![
        Box::new(AddressSpace::new_bus_number(0u16, last)),
        Box::new(IO::new(0xcf8, 0xcf8, 1, 8)),
        Box::new(AddressSpace::new_io(0u16, 0xcf7, None)),
        Box::new(AddressSpace::new_io(0xd00u16, 0xffff, None)),
    ];
    let cache = AddressSpaceCacheable::NotCacheable;
    for window in facts.windows.iter().filter(|window| !window.is_empty()) {
        let (min, max) = (window.start, window.end - 1);
        resources.push(Box::new(AddressSpace::new_memory(cache, true, min, max, None)));
    }
    if let Some(window) = facts.window64.as_ref().filter(|window| !window.is_empty()) {
        let (min, max) = (window.start, window.end - 1);
        resources.push(Box::new(AddressSpace::new_memory(cache, true, min, max, None)));
    }
    resources
}

/// `_PRT`: every pin of every slot goes to an input of the I/O APIC.
fn routing() -> PackageBuilder {
    let mut table = PackageBuilder::new();
    for (slot, pin) in (0..SLOTS).flat_map(|slot| (0..PINS).map(move |pin| (slot, pin))) {
        let address = u32::from(slot) << 16 | 0xffff;
        let line = interrupt_line(slot, pin);
        table.add_element(&Package::new(vec![&address, &pin, &ZERO, &line]));
    }
    table
}

/// Device 31 function 0 and what is behind it. Bytes, as its parts borrow each other.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn lpc_devices() -> Raw {
    let address = name("_ADR", &LPC);
    let serial = isa_device("COM1", "PNP0501", &[IO::new(COM1, COM1, 0, 8)], COM1_LINE);
    let clock = isa_device("RTC_", "PNP0B00", &[IO::new(0x70, 0x70, 0, 2)], RTC_LINE);
    let mut bytes = Vec::new();
    Device::new("ISA_".into(), vec![&address, &serial, &clock]).to_aml_bytes(&mut bytes);
    Raw(bytes)
}

fn isa_device(path: &str, id: &str, ports: &[IO], line: u32) -> Raw {
    let id = name("_HID", &EISAName::new(id));
    let uid = name("_UID", &1u8);
    let irq = IrqNoFlags(line);
    let mut resources: Vec<&dyn Aml> = ports.iter().map(|port| port as &dyn Aml).collect();
    resources.push(&irq);
    let resources = name("_CRS", &ResourceTemplate::new(resources));
    let mut bytes = Vec::new();
    Device::new(path.into(), vec![&id, &uid, &resources]).to_aml_bytes(&mut bytes);
    Raw(bytes)
}

/// ACPI 6.5 §6.4.2.1: an edge-triggered, active-high ISA interrupt. `acpi_tables` has only the
/// extended form, which Linux takes for level-triggered settings of its own.
struct IrqNoFlags(u32);

impl Aml for IrqNoFlags {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.byte(0x22);
        sink.word(1u16.checked_shl(self.0).unwrap_or(0));
    }
}

/// Addresses that are taken but belong to no device with a driver.
fn reserved(facts: &Facts, body: &mut Vec<u8>) {
    let id = name("_HID", &EISAName::new("PNP0C02"));
    let uid = name("_UID", &ZERO);
    let pm = IO::new(PM1_EVENT, PM1_EVENT, 0, 0x80);
    let ecam = facts.ecam.as_ref().and_then(|ecam| {
        let base = u32::try_from(ecam.start).ok()?;
        let size = u32::try_from(ecam.end - ecam.start).ok()?;
        Some(Memory32Fixed::new(true, base, size))
    });
    let mut resources: Vec<&dyn Aml> = vec![&pm];
    resources.extend(ecam.as_ref().map(|ecam| ecam as &dyn Aml));
    let resources = name("_CRS", &ResourceTemplate::new(resources));
    let device = Device::new("MBRD".into(), vec![&id, &uid, &resources]);
    Scope::new("\\_SB_".into(), vec![&device]).to_aml_bytes(body);
}

fn processor(id: u32, body: &mut Vec<u8>) {
    let hid = name("_HID", &"ACPI0007");
    let uid = name("_UID", &id);
    let path = format!("C{id:03X}");
    let device = Device::new(path.as_str().into(), vec![&hid, &uid]);
    Scope::new("\\_SB_".into(), vec![&device]).to_aml_bytes(body);
}
