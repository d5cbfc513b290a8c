//! Misdeeds against a network and its ring; see the library.

#![no_std]
#![no_main]

use hostile::{
    Outcome,
    misdeeds::{net, ring},
};

unikernel::manifest! { net "service0" }
unikernel::main!(main);

fn main() -> Outcome {
    hostile::run(&[net::ALL, ring::ALL])
}
