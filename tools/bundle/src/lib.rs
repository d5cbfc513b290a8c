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

use std::path::Path;
use std::{fs, io};

/// The status of the program `vm-bundle` if firmware is wanted and there is none. It says nothing
/// then: the caller may get some.
pub const NO_FIRMWARE: u8 = 3;

/// Writes a file whole, or leaves none: half an archive is of no use, least of all on a full disk.
///
/// # Errors
/// The system's.
pub fn write_whole(path: &Path, contents: &[u8]) -> io::Result<()> {
    let written = fs::write(path, contents);
    if written.is_err() && fs::metadata(path).is_ok_and(|there| there.is_file()) {
        let _ = fs::remove_file(path);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::write_whole;
    use std::path::Path;

    #[test]
    fn what_is_no_file_is_not_removed() {
        let full = Path::new("/dev/full");
        assert!(write_whole(full, b"x").is_err() && full.exists());
    }
}
