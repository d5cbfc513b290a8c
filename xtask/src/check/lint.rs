//! Form and lints of all workspaces: the main one, the unikernels' and the fuzz targets'.

use std::path::PathBuf;

use anyhow::Result;

use super::tally::Tally;
use crate::{paths, process};

/// rustfmt changes nothing.
pub fn format() -> Result<Tally> {
    for manifest in manifests() {
        let mut command = process::cargo();
        command.args(["fmt", "--all", "--check", "--manifest-path"]).arg(manifest);
        process::run(&mut command)?;
    }
    Ok(Tally::success())
}

/// clippy has nothing to say.
pub fn clippy() -> Result<Tally> {
    for manifest in manifests() {
        let mut command = process::cargo();
        command.args(["clippy", "--quiet", "--workspace", "--manifest-path"]).arg(&manifest);
        // A freestanding program has no test harness, and the crates beside it no other targets.
        if manifest == paths::root().join("Cargo.toml") {
            command.arg("--all-targets");
        } else {
            command.env("CARGO_TARGET_DIR", paths::target().join("unikernel-build"));
        }
        process::run(command.args(["--", "--deny", "warnings"]))?;
    }
    Ok(Tally::success())
}

fn manifests() -> impl Iterator<Item = PathBuf> {
    let all = ["", "unikernel", "fuzz"].map(|part| paths::root().join(part).join("Cargo.toml"));
    all.into_iter().filter(|manifest| manifest.exists())
}
