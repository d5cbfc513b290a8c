//! Where the tables say that the machine's fixed devices are.
//!
//! The power-management block is where the firmware of a PC with an ICH9 puts it, so that the
//! machine has it there before and after firmware has run.

/// Start of the power-management ports (ICH9: PMBASE), 128 of them.
pub const PM_BASE: u16 = 0x600;
/// PM1 status and enable.
pub const PM1_EVENT: u16 = PM_BASE;
/// PM1 control. Sleep type 0 with the sleep-enable bit turns the machine off.
pub const PM1_CONTROL: u16 = PM_BASE + 4;
/// The 24-bit timer of 3.579545 MHz.
pub const PM_TIMER: u16 = PM_BASE + 8;
/// The reset control register.
pub const RESET: u16 = 0xcf9;
/// What resets the machine when it is written there.
pub const RESET_VALUE: u8 = 0x06;
/// The interrupt of power management: level-triggered, active high.
pub const SCI: u8 = 9;
/// The I/O APIC, whose first pin is GSI 0.
pub const IO_APIC: u32 = 0xfec0_0000;
/// The local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// First of the serial port's eight ports.
pub const COM1: u16 = 0x3f8;
/// Its interrupt.
pub const COM1_IRQ: u8 = 4;
