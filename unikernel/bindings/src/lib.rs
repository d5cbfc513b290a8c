//! Unikernels in Rust, for Solo5's hvt ABI (versions 2, and 1 with the feature `abi1`) on x86_64.
//!
//! A unikernel is a `no_std` program with one address space, one thread and no interrupts. It
//! names its devices in [`manifest!`] and its entry in [`main!`]; heap, console, clock and
//! exception handlers are ready when the entry runs. A panic or an exception ends it with status
//! 255 and one line that says why.
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! unikernel::manifest! { block "storage"; net "service0" }
//! unikernel::main!(main);
//!
//! fn main() {
//!     unikernel::println!("Hello");
//! }
//! ```
//!
//! Its `build.rs` calls `unikernel_build::link()`. Sources of the ABI: Solo5 v0.12.1
//! `include/hvt_abi.h`, `mft_abi.h`, `elf_abi.h`, `hvt_ring.h`.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(test, allow(dead_code))]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("unikernels are built for x86_64 only: pass --target x86_64-unknown-linux-gnu");

extern crate alloc;

pub mod args;
pub mod block;
pub mod clock;
pub mod console;
mod cpu;
mod device;
mod error;
mod exit;
#[cfg(not(test))]
mod heap;
#[doc(hidden)]
pub mod manifest;
#[cfg(not(test))]
mod mem;
pub mod net;
pub mod poll;
pub mod raw;
#[cfg(not(test))]
mod start;

pub use args::args;
pub use block::Block;
pub use error::{Error, Result};
pub use exit::{Outcome, abort, exit};
pub use net::Net;
