//! MADT (ACPI 6.5 §5.2.12): interrupt controllers.

use super::Facts;
use crate::modes::type1::layout::{IO_APIC, IO_APIC_ID, LOCAL_APIC, SCI_LINE};
use alloc::vec::Vec;

/// With the structures of ACPI 5.0.
pub const REVISION: u8 = 3;

/// There are 8259s as well.
const PCAT_COMPAT: u32 = 1;
const ENABLED: u32 = 1;
/// MPS INTI flags: active high, level-triggered.
const HIGH_LEVEL: u16 = 0b1101;
/// As the bus has it.
const CONFORMS: u16 = 0;
const ALL_PROCESSORS: u8 = 0xff;

/// The table behind its header.
pub fn body(facts: &Facts) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&low(LOCAL_APIC.start));
    body.extend_from_slice(&PCAT_COMPAT.to_le_bytes());
    // 255 is the broadcast address; more processors would need x2APIC entries.
    for id in 0..u8::try_from(facts.vcpus).unwrap_or(u8::MAX) {
        body.extend_from_slice(&[0, 8, id, id]);
        body.extend_from_slice(&ENABLED.to_le_bytes());
    }
    body.extend_from_slice(&[1, 12, IO_APIC_ID, 0]);
    body.extend_from_slice(&low(IO_APIC.start));
    body.extend_from_slice(&0u32.to_le_bytes());
    // The timer is on pin 2, as the 8259s' cascade has no use for it.
    interrupt_override(&mut body, 0, 2, CONFORMS);
    let sci = u8::try_from(SCI_LINE).unwrap_or(0);
    interrupt_override(&mut body, sci, SCI_LINE, HIGH_LEVEL);
    // LINT1 of every processor is NMI.
    body.extend_from_slice(&[4, 6, ALL_PROCESSORS, 0, 0, 1]);
    body
}

/// The low half of an address below 4 GiB.
fn low(address: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = address.to_le_bytes();
    [a, b, c, d]
}

fn interrupt_override(body: &mut Vec<u8>, irq: u8, gsi: u32, flags: u16) {
    body.extend_from_slice(&[2, 10, 0, irq]);
    body.extend_from_slice(&gsi.to_le_bytes());
    body.extend_from_slice(&flags.to_le_bytes());
}
