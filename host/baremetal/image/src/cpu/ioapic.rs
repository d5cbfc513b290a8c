//! I/O APICs and the old 8259 pair (82093AA data sheet; 8259A data sheet).

use super::apic::vector;
use super::port::outb;
use crate::memory::space::map_device;
use host_baremetal::acpi::madt::Madt;
use host_baremetal::paging::Rights;

/// Masks the 8259 pair for good, with its vectors out of the way of exceptions.
pub fn silence_pic() {
    let bytes = [
        (0x20, 0x11),
        (0xa0, 0x11),
        (0x21, 0xe0),
        (0xa1, 0xe8),
        (0x21, 4),
        (0xa1, 2),
        (0x21, 1),
        (0xa1, 1),
        (0x21, 0xff),
        (0xa1, 0xff),
    ];
    for (port, value) in bytes {
        // SAFETY: the controllers' own ports.
        unsafe { outb(port, value) };
    }
}

/// Sends the first serial port's interrupt to the CPU with this APIC ID.
pub fn route_serial(madt: &Madt, id: u32) {
    let route = madt.isa(4);
    let below = madt.io.iter().filter(|io| io.first <= route.input);
    let Some(io) = below.max_by_key(|io| io.first) else { return };
    let Some(registers) = map_device(io.address, 0x20, Rights::DEVICE) else { return };
    let registers = registers.cast::<u32>();
    let write = |index: u32, value: u32| {
        // SAFETY: the select register, and the window to what it selects.
        unsafe {
            registers.write_volatile(index);
            registers.byte_add(0x10).write_volatile(value);
        }
    };
    let entry = 0x10 + 2 * (route.input - io.first);
    let (low, level) = (u32::from(route.low) << 13, u32::from(route.level) << 15);
    write(entry + 1, id << 24);
    write(entry, low | level | u32::from(vector::SERIAL));
}
