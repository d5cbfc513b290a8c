//! Misdeeds against a block device; see the library.

#![no_std]
#![no_main]

use hostile::{Outcome, misdeeds::block};

unikernel::manifest! { block "storage" }
unikernel::main!(main);

fn main() -> Outcome {
    hostile::run(&[block::ALL])
}
