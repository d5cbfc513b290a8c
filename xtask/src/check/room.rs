//! Room on the disk, looked at before the work: a compiler that finds none fails in the middle of
//! it, with an error that sounds like the code's.

use std::ffi::CString;
use std::io::Error;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::paths;

const GIB: u64 = 1 << 30;
/// What all checks together leave in the target folder, and something to spare.
const BUILT: u64 = 4 * GIB + GIB / 2;
/// What they need beside that while they run, such as disks of guests.
const WORKING: u64 = GIB / 2;

/// Whether a run of the checks has room for what it builds and fetches.
///
/// # Errors
/// If not: with the folder, what is there, what is needed and what to do.
pub fn check() -> Result<()> {
    let target = paths::target();
    let need = if target.join("redox-vm").exists() { WORKING } else { BUILT + WORKING };
    std::fs::create_dir_all(&target)
        .with_context(|| format!("cannot make the folder {}", target.display()))?;
    enough(&target, free(&target)?, need)
}

#[allow(unsafe_code)]
fn free(folder: &Path) -> Result<u64> {
    let name = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: all its fields are integers, of which zero is a value.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends with 0, and a structure to fill.
    if unsafe { libc::statvfs(name.as_ptr(), &raw mut found) } != 0 {
        return Err(Error::last_os_error())
            .with_context(|| format!("cannot ask for the room in {}", folder.display()));
    }
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn enough(folder: &Path, free: u64, need: u64) -> Result<()> {
    let gib = |bytes: u64| bytes as f64 / GIB as f64;
    ensure!(
        free >= need,
        "the disk of {} has {:.1} GiB of room, and the checks need {:.1}: make room, or set \
         CARGO_TARGET_DIR to a folder on another disk",
        folder.display(),
        gib(free),
        gib(need),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_told_with_what_to_do() {
        let told = enough(Path::new("/t"), GIB + GIB / 2, 4 * GIB).unwrap_err().to_string();
        assert!(told.starts_with("the disk of /t has 1.5 GiB of room, and the checks need 4.0:"));
        assert!(enough(Path::new("/t"), 4 * GIB, 4 * GIB).is_ok());
    }

    #[test]
    fn a_disk_tells_its_room() {
        assert!(free(Path::new("/")).is_ok());
        assert!(free(Path::new("/no such folder")).is_err());
    }
}
