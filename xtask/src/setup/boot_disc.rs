//! What makes and boots a bootable disc: GRUB's image maker and its modules, xorriso, mtools, and
//! UEFI firmware for QEMU; Debian's packages, unpacked into the cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::programs;

const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// The unpacked package, with what it depends on if `whole`.
fn package(name: &str, whole: bool, part: &str) -> Result<PathBuf> {
    let folder = programs::packages()?.join(name);
    if !folder.join(part).exists() {
        programs::debian()?.unpack(name, whole, &folder)?;
    }
    Ok(folder)
}

/// A command of a package.
fn command(name: &str, program: &str) -> Result<Command> {
    let part = format!("usr/bin/{program}");
    let folder = package(name, true, &part)?;
    let mut command = Command::new(folder.join(part));
    let libraries = LIBRARIES.map(|part| folder.join(part).display().to_string());
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    Ok(command)
}

/// `grub-mkimage`.
pub fn grub_mkimage() -> Result<Command> {
    command("grub-common", "grub-mkimage")
}

/// `xorriso`.
pub fn xorriso() -> Result<Command> {
    command("xorriso", "xorriso")
}

/// `mformat` or `mcopy` of mtools.
pub fn mtools(program: &str) -> Result<Command> {
    let mut command = command("mtools", "mtools")?;
    command.args(["-c", program]);
    Ok(command)
}

/// The folder of GRUB's modules for a platform: `i386-pc` or `x86_64-efi`.
pub fn grub_modules(platform: &str) -> Result<PathBuf> {
    let name = if platform == "i386-pc" { "grub-pc-bin" } else { "grub-efi-amd64-bin" };
    let part = format!("usr/lib/grub/{platform}");
    Ok(package(name, false, &part)?.join(part))
}

/// UEFI firmware for QEMU: its code; it keeps no variables.
pub fn uefi() -> Result<PathBuf> {
    let parts = ["usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_CODE.fd"];
    let folder = package("ovmf", false, "usr/share/OVMF")?;
    parts
        .map(|part| folder.join(part))
        .into_iter()
        .find(|path| path.exists())
        .context("Debian's ovmf holds no OVMF_CODE")
}
