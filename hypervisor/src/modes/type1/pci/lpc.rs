//! The LPC bridge: Intel's ICH9, behind which the machine's fixed devices are.
//!
//! Its power-management block is where the board has it and cannot be moved: PMBASE and ACPI_CNTL
//! say so and are read-only. The PIRQ registers remember what they are told: pins go to the I/O
//! APIC only, as ACPI's `_PRT` says.

use super::config::register;
use super::function::{Function, Identity};
use crate::modes::type1::layout::PM1_EVENT;

/// Its slot on bus 0.
pub const SLOT: u8 = 31;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x2918,
    revision: 2,
    class: [0x06, 0x01, 0x00],
    subsystem: (0x1af4, 0x1100),
};

const PMBASE: usize = 0x40;
/// Bit of PMBASE that is wired to 1: it is ports.
const IO_SPACE: u16 = 1;
const ACPI_CNTL: usize = 0x44;
/// Enabled; the SCI is interrupt 9.
const ACPI_ENABLED: u8 = 1 << 7;
const PIRQ: [usize; 2] = [0x60, 0x68];
/// Routed to no interrupt of the 8259 pair.
const PIRQ_OFF: [u8; 4] = [0x80; 4];
const PIRQ_BITS: [u8; 4] = [0x8f; 4];

/// The function.
pub fn lpc_bridge() -> Function {
    let mut function = Function::new(&IDENTITY);
    let config = function.config_mut();
    config.define(register::COMMAND, &[0b111], &[0, 0]);
    config.define(PMBASE, &(PM1_EVENT | IO_SPACE).to_le_bytes(), &[]);
    config.define(ACPI_CNTL, &[ACPI_ENABLED], &[]);
    PIRQ.iter().for_each(|at| config.define(*at, &PIRQ_OFF, &PIRQ_BITS));
    function
}
