//! Type 1 mode: whole machines for unmodified operating systems.
//!
//! The machine on x86_64 is a PC without a graphics adapter: local APICs and an I/O APIC, the
//! 8259 pair, an 8254, a CMOS clock, a 16550A serial line, ACPI's fixed hardware, and PCI with
//! ECAM. It is a [`board::Board`]; its map is [`layout`]; what it asks of a host is [`host`].

pub mod apic;
pub mod board;
pub mod boot;
pub mod cpuid;
pub mod devices;
#[cfg(test)]
mod fixture;
pub mod host;
pub mod interrupts;
pub mod layout;
pub mod machine;
pub mod mode;
pub mod msr;
pub mod paravirt;
pub mod pci;
pub mod processor;
pub mod slots;
