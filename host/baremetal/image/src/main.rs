//! The bare-metal image: a machine starts it, and nothing else is underneath.
//!
//! Order: `boot.s` hands over to [`rust_start`]; serial port, tables and memory are made ready;
//! then what the command line asks for. Interrupts stay off except where the scheduler opens them.

#![no_std]
#![no_main]

extern crate alloc;

mod boot;
mod cpu;
mod end;
mod log;
mod memory;
mod platform;
mod selftest;
mod serial;
mod trace;

use log::info;

/// Where `boot.s` goes to, on the boot CPU's stack. `multiboot` is multiboot2's magic number, or 0
/// after a start by PVH.
#[unsafe(no_mangle)]
extern "C" fn rust_start(multiboot: u32, info: u32) -> ! {
    serial::init();
    cpu::init();
    let boot = match boot::read(multiboot, info) {
        Ok(boot) => boot,
        Err(error) => panic!("{error}"),
    };
    memory::init(&boot);
    cpu::init_stacks();
    info!("redox-hypervisor {}: {} MiB free", env!("CARGO_PKG_VERSION"), memory::free() >> 20);
    let wanted = |word: &str| boot.command_line.split_ascii_whitespace().any(|w| w == word);
    if wanted("selftest") {
        end::exit(selftest::run());
    }
    if wanted("crash") {
        selftest::crash();
    }
    end::exit(true)
}
