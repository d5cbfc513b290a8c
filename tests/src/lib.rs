//! What the whole-system tests share: starting the tender, and the world around it.
//!
//! The tests run the built tender with built unikernels and look only at what a person would see:
//! exit status, output, files, frames. They need nothing of the source tree and no other program,
//! so the same test binaries run here and in a small virtual machine. `cargo xtask test` says
//! where things are, in these environment variables:
//!
//! | variable | meaning |
//! |---|---|
//! | `REDOX_HVT` | path of the tender |
//! | `UNIKERNELS` | folder with `NAME.hvt` |
//! | `REDOX_VM`, `LINUX` | path of the VM manager, folder with `vmlinuz` and `initramfs.cpio`; absent: no test of whole machines |
//! | `TEST_KERNEL` | path of `tests/kernel`, their guest |
//! | `REDOX_HYPERVISOR_IMAGE` | the bare-metal image, for `--backend=qemu` with the QEMU on `PATH`; absent: no test of it |
//! | `BACKEND` | what to pass with `--backend=`; absent: the tender chooses |

#![deny(unsafe_code)]

pub mod debugger;
pub mod elf;
pub mod environment;
pub mod filter;
pub mod limits;
pub mod machine;
pub mod namespace;
pub mod network;
pub mod processes;
pub mod pseudoterminal;
pub mod remote;
pub mod running;
pub mod scratch;
pub mod stream;
pub mod tender;
pub mod test_kernel;

pub use environment::{backend, tender_path, unikernel};
pub use machine::Machine;
pub use running::{Outcome, Running};
pub use scratch::Scratch;
pub use tender::Tender;
