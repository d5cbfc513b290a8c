//! Where QEMU and our bare-metal image are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const QEMU: &str = "qemu-system-x86_64";
/// The oldest version of it that this is tested with.
const OLDEST: u32 = 10;
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

/// What a person should know of this QEMU before it is started, if anything: it is too old, or
/// cannot be asked.
pub fn doubt(qemu: &Path) -> Option<String> {
    let shown = qemu.display();
    match Command::new(qemu).arg("--version").stdin(Stdio::null()).output() {
        Err(error) => Some(format!("{shown} cannot be started: {error}")),
        Ok(output) => match major(&String::from_utf8_lossy(&output.stdout)) {
            Some(version) if version < OLDEST => Some(format!(
                "{shown} is version {version}, and --backend=qemu is tested with {OLDEST} and later"
            )),
            _ => None,
        },
    }
}

/// The first number of a version in QEMU's own words.
fn major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("version ")?;
    version.split('.').next()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_qemu_is_told() {
        assert_eq!(major("QEMU emulator version 7.2.0 (Debian 1:7.2+dfsg-7)"), Some(7));
        assert_eq!(major("QEMU emulator version 10.0.2"), Some(10));
        assert_eq!(major("something else"), None);
        assert!(doubt(Path::new("/nowhere/qemu")).unwrap().contains("/nowhere/qemu cannot be"));
        assert_eq!(doubt(Path::new("/bin/true")), None);
    }
}
