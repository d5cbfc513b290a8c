//! HVT mode: Solo5 unikernels, as Solo5's hvt ABI defines them (versions 1 and 2).
//!
//! An [`service::Service`] answers one guest's hypercalls, on any backend and any host.

pub mod arch;
pub mod attach;
pub mod boot;
pub mod cmdline;
pub mod elf;
#[cfg(test)]
pub(crate) mod fixture;
pub mod hypercall;
pub mod image;
pub mod layout;
pub mod manifest;
pub mod mode;
pub mod notes;
pub mod reach;
pub mod ring;
pub mod segment;
pub mod service;
pub mod solo5_abi;
pub mod stats;
pub mod tender;
