//! The processor: ports, registers, tables, exceptions, and what each CPU has of its own.

pub mod apic;
pub mod exception;
pub mod interrupt;
pub mod ioapic;
pub mod local;
pub mod port;
pub mod register;
pub mod tables;

use local::Local;

/// Makes the boot CPU ready for exceptions.
pub fn init() {
    local::init_boot_cpu();
    tables::load(local::this(), false);
    register::init_control();
}

/// Gives the boot CPU's exceptions stacks of their own; memory is there now.
pub fn init_stacks() {
    tables::load(local::this(), true);
}

/// Makes another CPU ready, as [`init`] and [`init_stacks`] do the boot CPU.
pub fn init_other(local: &'static Local) {
    tables::load(local, true);
    register::init_control();
}
