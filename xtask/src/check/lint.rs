//! Form, lints and documentation of all workspaces: the main one, the unikernels', the fuzz targets', the test
//! kernel's and the bare-metal image's.

use std::path::{Path, PathBuf};

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
        match workspace(&manifest) {
            // A freestanding program has no test harness, and the crates beside it no other
            // targets.
            Some(name) => {
                let folder = format!("{name}-build");
                command.arg("--all-features");
                command.env("CARGO_TARGET_DIR", paths::target().join(folder))
            }
            None => command.args(["--all-targets", "--features", "system-tests/image"]),
        };
        process::run(command.args(["--", "--deny", "warnings"]))?;
    }
    Ok(Tally::success())
}

/// rustdoc has nothing to say of the main workspace: no link leads nowhere.
pub fn documentation() -> Result<Tally> {
    let mut command = process::cargo();
    command.args(["doc", "--quiet", "--workspace", "--no-deps"]);
    process::run(command.env("RUSTDOCFLAGS", "--deny warnings"))?;
    Ok(Tally::success())
}

/// The folder of a workspace of its own; none for the main one.
fn workspace(manifest: &Path) -> Option<String> {
    let folder = manifest.parent()?;
    (folder != paths::root()).then(|| folder.file_name().map(|n| n.to_string_lossy().into()))?
}

fn manifests() -> impl Iterator<Item = PathBuf> {
    let all = ["", "unikernel", "fuzz", "tests/kernel", "host/baremetal/image"];
    let all = all.map(|part| paths::root().join(part).join("Cargo.toml"));
    all.into_iter().filter(|manifest| manifest.exists())
}
