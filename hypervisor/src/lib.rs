//! The hypervisor's core: what a virtual machine is, in every mode, on every host.
//!
//! The crate is `no_std` with `alloc`. It knows no operating system and no backend: backends
//! implement [`vcpu`], hosts implement [`host`], and the modes in [`modes`] join the two.
//!
//! `unsafe` lives in one island, [`memory`], whose invariants are written there.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod config;
pub mod debug;
pub mod detect;
pub mod device;
pub mod host;
pub mod memory;
pub mod mode;
pub mod modes;
pub mod sync;
pub mod syscall;
pub mod vcpu;
pub mod vm;
