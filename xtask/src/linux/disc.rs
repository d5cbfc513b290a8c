//! A disc with the same Linux, which GRUB starts: what a machine with firmware boots.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{FILES, folder};
use crate::image::iso::{self, Disc};

/// GRUB's commands: no menu, and nothing that waits.
const COMMANDS: &str = "serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
echo GRUB loads Linux
linux /boot/vmlinuz console=ttyS0 panic=-1
initrd /boot/initramfs.cpio
";

/// Makes the disc, of what [`super::build`] has made.
pub fn make(output: &Path) -> Result<()> {
    let files = iso::folder("linux")?;
    for name in FILES {
        let from = folder().join(name);
        fs::copy(&from, files.join("boot").join(name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let (mark, modules) = ("/boot/vmlinuz", &["linux", "echo"][..]);
    Disc { name: "LINUX", files: &files, mark, commands: COMMANDS, modules }.make(output)
}
