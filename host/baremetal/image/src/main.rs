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
mod power;
// Used by the modes, which need the native backend.
#[allow(dead_code)]
mod scheduled;
mod selftest;
mod serial;
mod smp;
mod thread;
mod time;
mod trace;

use cpu::{apic, ioapic, local};
use host_baremetal::acpi::Acpi;
use host_baremetal::boot::BootInfo;
use host_baremetal::options::{Options, Task};
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
    let acpi = boot::acpi(&boot);
    memory::init(&boot);
    cpu::init_stacks();
    let options = Options::parse(&boot.command_line);
    log::set_level(options.level);
    end::set_after_failure(options.reset_after_failure);
    start_hardware(&boot, &acpi, &options);
    info!("redox-hypervisor {}: {} MiB free", env!("CARGO_PKG_VERSION"), memory::free() >> 20);
    if thread::spawn(Some(0), move || run(&options)).is_none() {
        panic!("no memory for the first thread");
    }
    thread::idle()
}

/// Interrupts, time, the other CPUs.
fn start_hardware(boot: &BootInfo, acpi: &Acpi, options: &Options) {
    let Some(madt) = &acpi.madt else {
        panic!("the firmware has no ACPI table of interrupt controllers (MADT)");
    };
    power::init(acpi.fadt);
    ioapic::silence_pic();
    apic::find(madt.local);
    let own = apic::init();
    local::publish(local::this(), own);
    time::init(acpi.fadt.as_ref());
    ioapic::route_serial(madt, own);
    smp::start(boot, madt, own, options.cpus);
}

/// The first thread.
fn run(options: &Options) {
    match options.task {
        Task::SelfTest => end::exit(selftest::run()),
        Task::Crash => selftest::crash(),
        Task::Guests => {}
    }
    power::off()
}
