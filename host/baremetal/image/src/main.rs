//! The bare-metal image: a machine starts it, and nothing else is underneath.
//!
//! Order: `boot.s` hands over to [`rust_start`]; serial port, tables and memory are made ready;
//! then what the command line asks for. Interrupts stay off except where the scheduler opens them.

#![no_std]
#![no_main]

extern crate alloc;

#[cfg(feature = "self-test")]
mod bench;
mod boot;
mod console;
mod cpu;
mod devices;
mod end;
mod log;
mod memory;
mod platform;
mod power;
mod scheduled;
#[cfg(feature = "self-test")]
mod selftest;
mod serial;
mod smp;
mod terminal;
mod thread;
mod time;
mod trace;
mod vms;

use ::alloc::sync::Arc;
use ::alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use cpu::{apic, ioapic, local};
use host_baremetal::acpi::Acpi;
use host_baremetal::boot::BootInfo;
use host_baremetal::cpus::CpuSet;
use host_baremetal::options::{Options, Start, Task};
use hypervisor::vm::VmId;
use log::{info, warning};
use vms::{Files, Machines};

/// Where `boot.s` goes to, on the boot CPU's stack. `multiboot` is multiboot2's magic number, or 0
/// after a start by PVH.
#[unsafe(no_mangle)]
extern "C" fn rust_start(multiboot: u32, info: u32) -> ! {
    serial::init();
    cpu::init();
    let mut boot = match boot::read(multiboot, info) {
        Ok(boot) => boot,
        Err(error) => panic!("{error}"),
    };
    let acpi = boot::acpi(&boot);
    memory::init(&mut boot);
    cpu::init_stacks();
    let options = Options::parse(&boot.command_line);
    log::set_level(options.level);
    end::set_after_failure(options.reset_after_failure);
    start_hardware(&boot, &acpi, &options);
    let (free, used) = (memory::free() >> 20, memory::in_use() >> 10);
    info!("redox-hypervisor {}: {free} MiB free, {used} KiB in use", env!("CARGO_PKG_VERSION"));
    let files = Files::new(boot.modules.first().cloned().unwrap_or(0..0));
    if thread::spawn(CpuSet::one(0), move || run(&options, files)).is_none() {
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
    vms::clock::init(acpi.fadt.as_ref());
    ioapic::route_serial(madt, own);
    smp::start(boot, madt, own, options.cpus);
}

/// An exception, to see what is printed.
fn crash() {
    // SAFETY: an undefined instruction by design; it does not come back.
    unsafe { core::arch::asm!("ud2") };
}

/// Whether a VM that the command line asks for could not be made or started.
static MISSED: AtomicBool = AtomicBool::new(false);

/// The first thread.
fn run(options: &Options, files: Files) {
    for word in &options.unknown {
        warning!("the command line's \"{word}\" means nothing: docs/baremetal.md lists what does");
    }
    match options.task {
        #[cfg(feature = "self-test")]
        Task::SelfTest => end::exit(selftest::run()),
        #[cfg(feature = "self-test")]
        Task::Bench => end::exit(bench::run()),
        #[cfg(not(feature = "self-test"))]
        Task::SelfTest | Task::Bench => {
            warning!("this image was built without its self-test: docs/baremetal.md tells how");
            end::exit(false);
        }
        Task::Crash => crash(),
        Task::Guests => {}
    }
    let machines = Machines::new(files, options.guest_cpus.clone());
    if options.exit {
        machines.when_idle(|good| end::exit(good && !MISSED.load(Ordering::Relaxed)));
    }
    let started = start(&machines, options);
    if options.exit && started == 0 {
        end::exit(false);
    }
    if options.console {
        console::run(&machines);
    } else if started == 0 {
        // Nobody can ask for anything any more.
        power::off();
    }
}

/// Makes and starts what the command line says; gives how many VMs run.
fn start(machines: &Arc<Machines>, options: &Options) -> u32 {
    if let Err(error) = machines.can_run() {
        warning!("{error}");
        return 0;
    }
    let configs = match (&options.start, machines.configs()) {
        (Start::These(names), _) => names.clone(),
        (Start::All, Ok(names)) => names.into_iter().map(Into::into).collect(),
        (Start::All, Err(error)) => {
            warning!("{error}");
            return 0;
        }
    };
    let made = configs.iter().filter_map(|config| match machines.create(config) {
        Ok(vm) => Some(vm),
        Err(error) => {
            MISSED.store(true, Ordering::Relaxed);
            warning!("{error}");
            None
        }
    });
    // All are there before the first one runs: the last one to end is the last of all.
    let made: Vec<VmId> = made.collect();
    if let Some(vm) = options.attach.as_ref().and_then(|name| machines.find(name).ok()) {
        terminal::attach(vm.get());
    }
    made.into_iter().fold(0, |started, vm| match machines.start(vm) {
        Ok(()) => started + 1,
        Err(error) => {
            MISSED.store(true, Ordering::Relaxed);
            warning!("{error}");
            started
        }
    })
}
