//! The guest of `examples/linux.toml`: Debian's kernel, and an initial RAM disk of busybox.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::paths;
use crate::qemu::initramfs::Files;
use crate::setup::{kernel, programs};

/// Where `examples/linux.toml` finds them.
pub fn folder() -> PathBuf {
    paths::root().join("target/linux")
}

/// The description.
pub fn description() -> PathBuf {
    paths::root().join("examples/linux.toml")
}

/// Puts kernel and initial RAM disk where the description expects them.
pub fn build() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kernel = kernel::get()?.image;
    fs::copy(&kernel, folder.join("vmlinuz"))
        .with_context(|| format!("cannot copy {}", kernel.display()))?;
    let mut files = Files::default();
    files.add_file("/bin/busybox", &programs::busybox()?)?;
    files.add_link("/bin/sh", "busybox");
    files.add_bytes("/init", 0o755, include_bytes!("init.sh").to_vec());
    fs::write(folder.join("initramfs.cpio"), files.archive()?)?;
    Ok(())
}
