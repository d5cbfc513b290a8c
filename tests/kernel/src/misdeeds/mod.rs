//! The misdeeds, by name.

mod chips;
mod interrupts;
mod memory;
mod modes;
mod nested;
mod registers;
mod rings;

use crate::pvh::Boot;
use crate::{println, serial};

/// One misdeed.
struct Misdeed {
    name: &'static str,
    run: fn(&Boot),
    /// It does not come back, so `all` leaves it out.
    last: bool,
}

const fn returns(name: &'static str, run: fn(&Boot)) -> Misdeed {
    Misdeed { name, run, last: false }
}

const fn last(name: &'static str, run: fn(&Boot)) -> Misdeed {
    Misdeed { name, run, last: true }
}

/// Those that break what others need come last.
const MISDEEDS: &[Misdeed] = &[
    returns("cpuid", registers::cpuid_leaves),
    returns("msr-read", registers::msr_reads),
    returns("control", registers::control_registers),
    returns("debug", registers::debug_registers),
    returns("hypercalls", nested::hypercalls),
    returns("nested", nested::instructions),
    returns("beyond", memory::beyond),
    returns("self-modify", memory::self_modify),
    returns("page-tables", memory::page_tables),
    returns("long-strings", memory::long_strings),
    returns("modes", modes::tour),
    returns("nmi", interrupts::nmis),
    returns("ipi", interrupts::flood),
    returns("msr-write", registers::msr_writes),
    returns("rings", rings::lies),
    returns("pci", chips::config_space),
    returns("chips", chips::garbage),
    returns("ports", chips::ports),
    last("triple", |_| crate::cpu::triple_fault()),
    last("spin", |_| crate::cpu::spin()),
    last("halt", |_| crate::cpu::halt()),
    last("exceptions", interrupts::exceptions_without_end),
    last("nmi-spin", interrupts::nmis_without_end),
    last("ipi-spin", interrupts::flood_without_end),
];

/// Does what a name says.
pub fn run(name: &str, boot: &Boot) {
    match name {
        "list" => MISDEEDS.iter().for_each(|misdeed| {
            println!("{} {}", misdeed.name, if misdeed.last { "last" } else { "returns" });
        }),
        "all" => MISDEEDS.iter().filter(|misdeed| !misdeed.last).for_each(|m| one(m, boot)),
        _ => match MISDEEDS.iter().find(|misdeed| misdeed.name == name) {
            Some(misdeed) => one(misdeed, boot),
            None => println!("test-kernel: no misdeed {name:?}"),
        },
    }
}

fn one(misdeed: &Misdeed, boot: &Boot) {
    println!("begin {}", misdeed.name);
    (misdeed.run)(boot);
    // Whatever it did to the console.
    serial::init();
    println!("{} {}", if misdeed.last { "SURVIVED" } else { "done" }, misdeed.name);
}

/// A sequence of numbers, the same in every run.
pub struct Numbers(u64);

impl Numbers {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ self.0 >> 33
    }

    /// The next one's low half.
    #[allow(clippy::cast_possible_truncation)]
    pub fn word(&mut self) -> u32 {
        self.next() as u32
    }
}
