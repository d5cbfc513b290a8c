//! Misdeeds that need no device; see the library.

#![no_std]
#![no_main]

use hostile::{
    Outcome,
    misdeeds::{calls, cpu, entrances, exceptions, memory, state},
};

unikernel::manifest! {}
unikernel::main!(main);

fn main() -> Outcome {
    hostile::run(&[memory::ALL, calls::ALL, cpu::ALL, exceptions::ALL, state::ALL, entrances::ALL])
}
