//! A guest operating system for tests: behaves, or misbehaves, as its command line says.
//!
//! It boots by PVH with any number of processors, needs a 16550 at 0x3f8 for its words and ACPI's
//! S5 to end. Words on the command line:
//!
//! | word | meaning |
//! |---|---|
//! | `do=NAME[,NAME...]` | the misdeeds, in this order; `list` prints their names; `all` is all that come back |
//! | `heartbeat=N` | N beats, each a checksum over 8 MiB and one line with its number |
//! | `measure=N` | what exits cost, in ticks of the cycle counter: a line for each kind |
//! | `end=off` (default), `reset`, `triple`, `spin`, `halt` | how it ends |
//!
//! Each misdeed prints `begin NAME`, facts, and `done NAME`; what must not come back and does prints
//! `SURVIVED NAME`. The last line is `test-kernel: end`.

#![no_std]
#![no_main]
#![allow(unsafe_code)]

mod acpi;
mod apic;
mod cpu;
mod heartbeat;
mod measure;
mod misdeeds;
mod pvh;
mod serial;
mod traps;

use core::arch::global_asm;

global_asm!(include_str!("boot.s"), options(att_syntax));
global_asm!(include_str!("traps.s"), options(att_syntax));
global_asm!(include_str!("mem.s"), options(att_syntax));

/// The first processor's first Rust function.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: u64) -> ! {
    serial::init();
    traps::init();
    traps::load();
    // SAFETY: PVH promises the structure, its command line included, at this address, which is
    // mapped one to one.
    let boot = unsafe { pvh::Boot::read(start_info) };
    println!("test-kernel: {} bytes of RAM below {:#x}", boot.ram_bytes, boot.ram_end);
    let mut end = "off";
    for word in boot.command_line.split_ascii_whitespace() {
        match word.split_once('=') {
            Some(("do", names)) => names.split(',').for_each(|name| misdeeds::run(name, &boot)),
            Some(("heartbeat", beats)) => heartbeat::run(beats.parse().unwrap_or(10)),
            Some(("measure", rounds)) => measure::run(rounds.parse().unwrap_or(1_000), &boot),
            Some(("end", how)) => end = how,
            _ => println!("test-kernel: unknown word {word:?}"),
        }
    }
    println!("test-kernel: end");
    match end {
        "reset" => cpu::reset(),
        "triple" => cpu::triple_fault(),
        "spin" => cpu::spin(),
        "halt" => cpu::halt(),
        _ => acpi::power_off(&boot),
    }
}

/// Another processor's first Rust function.
#[unsafe(no_mangle)]
extern "C" fn ap_main() -> ! {
    traps::load();
    apic::enable();
    cpu::wait_for_interrupts()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("test-kernel: PANIC: {info}");
    cpu::halt()
}
