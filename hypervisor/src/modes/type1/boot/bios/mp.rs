//! The multiprocessor table (Intel MultiProcessor Specification 1.4, chapter 4), for kernels that do
//! not read ACPI: it says the same as the MADT.

use crate::memory::{Gpa, GuestMemory, MemoryError};
use crate::modes::type1::layout::{IO_APIC, IO_APIC_ID, LOCAL_APIC, SCI_LINE, TIMER_LINE};
use crate::modes::type1::pci::interrupt_line;
use alloc::vec::Vec;

/// Version 1.4.
const REVISION: u8 = 4;
/// Versions of the APICs, which guests read from the registers.
const LOCAL_VERSION: u8 = 0x14;
const IO_VERSION: u8 = 0x20;
const HEADER: usize = 44;
const FLOATING: usize = 16;

const PCI_BUS: u8 = 0;
const ISA_BUS: u8 = 1;
/// Interrupt types.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;
/// As the bus has it; active high and level-triggered; active low and level-triggered.
const CONFORMS: u8 = 0;
const HIGH_LEVEL: u8 = 0b1101;
const LOW_LEVEL: u8 = 0b1111;
const ALL: u8 = 0xff;
/// Devices on a PCI bus, and pins of each.
const DEVICES: u8 = 32;
const PINS: u8 = 4;
/// Interrupt lines of an ISA bus.
const ISA_LINES: u8 = 16;

/// Writes the floating pointer at `at`, a multiple of 16, and the table behind it.
pub fn install(memory: &GuestMemory, at: Gpa, vcpus: u32) -> Result<(), MemoryError> {
    let place = u32::try_from(at.0 + FLOATING as u64).unwrap_or(0);
    let mut floating = Vec::from(*b"_MP_");
    floating.extend(place.to_le_bytes());
    // One paragraph long; there is a table, and no PIC mode.
    floating.extend([1, REVISION, 0, 0, 0, 0, 0, 0]);
    seal(&mut floating, 10);
    memory.write_bytes(at, &floating)?;
    memory.write_bytes(Gpa(place.into()), &table(vcpus))
}

fn table(vcpus: u32) -> Vec<u8> {
    let mut entries = Entries::default();
    entries.processors(u8::try_from(vcpus).unwrap_or(ALL));
    entries.add(&[1, PCI_BUS], b"PCI   ");
    entries.add(&[1, ISA_BUS], b"ISA   ");
    entries.add(&[2, IO_APIC_ID, IO_VERSION, 1], &address(IO_APIC.start));
    entries.interrupts();
    let length = HEADER + entries.bytes.len();
    let mut table = Vec::from(*b"PCMP");
    table.extend(u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    table.extend([REVISION, 0]);
    table.extend(*b"REDOX   HYPERVISOR  ");
    // No table of the maker's own.
    table.extend([0; 6]);
    table.extend(entries.count.to_le_bytes());
    table.extend(address(LOCAL_APIC.start));
    table.extend([0; 4]);
    table.append(&mut entries.bytes);
    seal(&mut table, 7);
    table
}

#[derive(Default)]
struct Entries {
    bytes: Vec<u8>,
    count: u16,
}

impl Entries {
    fn add(&mut self, first: &[u8], rest: &[u8]) {
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(rest);
        self.count += 1;
    }

    /// Family 6 with FPU and APIC: kernels ask CPUID for more.
    fn processors(&mut self, count: u8) {
        const ENABLED: u8 = 1;
        const BOOT: u8 = 2;
        for id in 0..count {
            let flags = if id == 0 { ENABLED | BOOT } else { ENABLED };
            self.add(&[0, id, LOCAL_VERSION, flags], &[0, 6, 0, 0, 1, 2, 0, 0]);
            self.bytes.extend([0; 8]);
        }
    }

    fn interrupts(&mut self) {
        let line = |line: u32| line.to_le_bytes()[0];
        self.interrupt(EXT_INT, CONFORMS, ISA_BUS, 0, 0);
        for irq in (0..ISA_LINES).filter(|irq| *irq != 2) {
            let (flags, pin) = match irq {
                irq if irq == line(TIMER_LINE) => (CONFORMS, 2),
                irq if irq == line(SCI_LINE) => (HIGH_LEVEL, irq),
                irq => (CONFORMS, irq),
            };
            self.interrupt(INT, flags, ISA_BUS, irq, pin);
        }
        for device in 0..DEVICES {
            for pin in 0..PINS {
                let to = line(interrupt_line(device, pin));
                self.interrupt(INT, LOW_LEVEL, PCI_BUS, device << 2 | pin, to);
            }
        }
        // LINT0 of every processor is the 8259s', LINT1 is NMI.
        self.add(&[4, EXT_INT, CONFORMS, 0], &[ISA_BUS, 0, ALL, 0]);
        self.add(&[4, NMI, CONFORMS, 0], &[ISA_BUS, 0, ALL, 1]);
    }

    /// From a line of a bus to a pin of the I/O APIC.
    fn interrupt(&mut self, kind: u8, flags: u8, bus: u8, line: u8, pin: u8) {
        self.add(&[3, kind, flags, 0], &[bus, line, IO_APIC_ID, pin]);
    }
}

/// Makes the sum of all bytes 0.
fn seal(bytes: &mut [u8], checksum: usize) {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[checksum] = bytes[checksum].wrapping_sub(sum);
}

fn address(address: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = address.to_le_bytes();
    [a, b, c, d]
}
