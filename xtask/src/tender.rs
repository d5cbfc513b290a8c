//! Builds the tender `redox-hvt` and puts it at `target/redox-hvt`, with `solo5-hvt` beside it as
//! a symbolic link.
//!
//! The tender is a static program without a C library (see `host/runtime`): it starts faster, and
//! the same file runs in the test machine's bare userland. The flags
//! go through the per-target environment variable with an explicit `--target`, which keeps build
//! scripts and procedural macros (they must stay dynamic) out of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{paths, process};

/// The target of everything that runs on the host.
pub const HOST_TARGET: &str = "x86_64-unknown-linux-gnu";
const FLAGS_VARIABLE: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS";

/// Builds the tender in release form and returns where it is.
pub fn build() -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["build", "--release", "--package", "redox-hvt"]);
    if !paths::tender().exists() {
        process::say("building redox-hvt; the first time takes about a minute");
    }
    if link_statically(&mut command)? {
        command.args(["--features", "static-runtime"]);
    } else {
        process::say("`cc` cannot link static programs (Debian: libc6-dev): redox-hvt is dynamic");
    }
    process::run(&mut command)?;
    let built = paths::target().join(HOST_TARGET).join("release/redox-hvt");
    install(&built, &paths::tender())?;
    Ok(paths::tender())
}

/// Builds the VM manager `redox-vm`, static too where that can be, and returns where it is.
pub fn build_manager() -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["build", "--release", "--package", "redox-vm"]);
    if !paths::manager().exists() {
        process::say("building redox-vm; the first time takes about a minute");
    }
    link_statically(&mut command)?;
    process::run(&mut command)?;
    let built = paths::target().join(HOST_TARGET).join("release/redox-vm");
    replace(&built, &paths::manager())?;
    Ok(paths::manager())
}

/// Makes a cargo command build static programs for [`HOST_TARGET`]; false where the machine has
/// no static C library, and the command then builds dynamic ones for the same target.
pub fn link_statically(command: &mut Command) -> Result<bool> {
    let can = can_link_statically()?;
    command.args(["--target", HOST_TARGET]);
    if can {
        command.env(FLAGS_VARIABLE, "-C target-feature=+crt-static");
    }
    Ok(can)
}

fn can_link_statically() -> Result<bool> {
    let folder = paths::work("static-probe")?;
    let source = folder.join("probe.c");
    fs::write(&source, "int main(void) { return 0; }\n")?;
    let linked = Command::new("cc")
        .args(["-static-pie", "-o"])
        .arg(folder.join("probe"))
        .arg(&source)
        .output()
        .context("cannot start the C compiler `cc`: Rust needs it to link; install gcc")?;
    Ok(linked.status.success())
}

/// Replaces by rename: a running program keeps its file.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let fresh = to.with_extension("new");
    fs::copy(from, &fresh).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::rename(&fresh, to).with_context(|| format!("cannot replace {}", to.display()))
}

fn install(from: &Path, to: &Path) -> Result<()> {
    replace(from, to)?;
    let alias = to.with_file_name("solo5-hvt");
    let _ = fs::remove_file(&alias);
    symlink("redox-hvt", &alias).with_context(|| format!("cannot make {}", alias.display()))
}
