//! What is the same wherever VMs' files are put together, in the VM manager and in `cargo xtask`:
//! the firmware that a description needs and does not name, and what fits into a boot module.

pub mod firmware;
mod room;

pub use room::Room;
