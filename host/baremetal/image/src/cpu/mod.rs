//! The processor: ports, registers, tables, exceptions, and what each CPU has of its own.

pub mod exception;
pub mod local;
pub mod port;
pub mod register;
pub mod tables;

/// Makes the boot CPU ready for exceptions.
pub fn init() {
    local::init_boot_cpu();
    tables::load(local::this());
    register::init_control();
}

/// Gives the boot CPU's exceptions stacks of their own; memory is there now.
pub fn init_stacks() {
    tables::give_stacks(local::this());
}
