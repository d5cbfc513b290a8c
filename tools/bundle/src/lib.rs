//! What is the same wherever VMs' files are put together, in the VM manager and in `cargo xtask`:
//! the archive, the firmware that a description needs and does not name, and what fits into a boot
//! module.

mod archive;
#[cfg(feature = "descriptions")]
pub mod firmware;
#[cfg(feature = "descriptions")]
mod room;

pub use archive::Files;
#[cfg(feature = "descriptions")]
pub use room::Room;

/// The status of the program `vm-bundle` if firmware is wanted and there is none. It says nothing
/// then: the caller may get some.
pub const NO_FIRMWARE: u8 = 3;
