//! Small C programs of our own, for where Rust's would be too large or too late.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{paths, process};

/// For a program without a C library: it begins at `_start`.
pub const FREESTANDING: [&str; 4] =
    ["-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"];

/// Compiles `source`, a path in `xtask/`, to a file of this name.
///
/// # Errors
/// If there is no C compiler, or it fails.
pub fn compile(source: &str, product: &str, options: &[&str]) -> Result<PathBuf> {
    let output = paths::work("cc")?.join(product);
    let mut command = Command::new("cc");
    command.args(["-O2", "-Wall", "-Wextra", "-Werror"]).args(options).arg("-o").arg(&output);
    process::run(command.arg(paths::root().join("xtask").join(source)))?;
    Ok(output)
}
