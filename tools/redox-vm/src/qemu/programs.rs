//! Where QEMU and our bare-metal image are.

use std::env;
use std::path::PathBuf;

const QEMU: &str = "qemu-system-x86_64";
/// The image's file, beside this program.
const IMAGE: &str = "redox-hypervisor.elf";
/// Names the image, where it is elsewhere.
const IMAGE_VARIABLE: &str = "REDOX_HYPERVISOR_IMAGE";

/// The emulator: the first on `PATH`.
///
/// # Errors
/// If there is none.
pub fn qemu() -> Result<PathBuf, String> {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).map(|folder| folder.join(QEMU)).find(|at| at.is_file()).ok_or_else(
        || format!("--backend=qemu needs {QEMU} (version 10 or later): install qemu-system-x86"),
    )
}

/// The image.
///
/// # Errors
/// If it is neither named nor beside this program.
pub fn image() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os(IMAGE_VARIABLE).map(PathBuf::from) {
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!("{IMAGE_VARIABLE}={}: no such file", path.display())),
        };
    }
    let beside = env::current_exe().ok().and_then(|own| Some(own.parent()?.join(IMAGE)));
    beside.filter(|at| at.is_file()).ok_or_else(|| {
        format!(
            "--backend=qemu needs our bare-metal image: put {IMAGE} (made by `cargo xtask image`) \
             beside redox-vm, or name it in {IMAGE_VARIABLE}"
        )
    })
}
