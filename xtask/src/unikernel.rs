//! Building unikernels, the examples' and anyone's: `cargo xtask unikernel build|new PATH`.
//!
//! A unikernel is an ordinary cargo package whose `build.rs` brings the linker flags, so this runs
//! `cargo build --release` there and copies each binary to `NAME.hvt`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use serde_json::Value;

use crate::{paths, process};

mod skeleton;

/// Guests run on x86_64; named explicitly, so that flags meant for Linux programs stay away.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What `cargo xtask unikernel` does.
#[derive(Subcommand)]
pub enum Options {
    /// Build the unikernel in a folder
    Build {
        /// Folder with its Cargo.toml
        path: PathBuf,
        /// Where NAME.hvt goes
        #[arg(long, default_value = ".")]
        out: PathBuf,
    },
    /// Make a new unikernel: a folder with all that is needed to build it
    New {
        /// Folder to make; its name is the unikernel's
        path: PathBuf,
    },
}

/// Does it and prints where the result is.
pub fn run(options: &Options) -> Result<()> {
    match options {
        Options::Build { path, out } => {
            for image in build(path, out)? {
                println!("{}", image.display());
            }
        }
        Options::New { path } => {
            skeleton::write(path, &bindings())?;
            println!("{0}: build it with `cargo xtask unikernel build {0}`", path.display());
        }
    }
    Ok(())
}

/// Builds the package at `path`; copies its binaries to `out`, which is made if absent. Returns
/// the copies.
pub fn build(path: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    let manifest = path.join("Cargo.toml");
    let manifest = fs::canonicalize(&manifest)
        .with_context(|| format!("no {}: give a cargo package", manifest.display()))?;
    let built = cargo_build(&manifest, &[])?;
    ensure!(!built.is_empty(), "{} has no binary: add src/main.rs", manifest.display());
    built.iter().map(|executable| keep(executable, out)).collect()
}

/// Builds the example package of this name; returns the image of the same name.
pub fn build_example(name: &str) -> Result<PathBuf> {
    let known = examples()?;
    if !known.iter().any(|example| example == name) {
        bail!("no example `{name}`: there are {}", known.join(", "));
    }
    let images = build(&workspace().join("examples").join(name), &paths::unikernels())?;
    let wanted = format!("{name}.hvt");
    let image = images.into_iter().find(|image| image.ends_with(&wanted));
    image.with_context(|| format!("example `{name}` builds no binary of its name"))
}

/// Builds all examples at once; returns their images.
pub fn build_examples() -> Result<Vec<PathBuf>> {
    let built = cargo_build(&workspace().join("Cargo.toml"), &["--workspace"])?;
    built.iter().map(|executable| keep(executable, &paths::unikernels())).collect()
}

/// Names of the example packages, sorted.
pub fn examples() -> Result<Vec<String>> {
    let folder = workspace().join("examples");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| folder.join(name).join("Cargo.toml").is_file())
        .collect();
    names.sort();
    Ok(names)
}

fn workspace() -> PathBuf {
    paths::root().join("unikernel")
}

/// Where the `unikernel` and `unikernel-build` packages are.
fn bindings() -> PathBuf {
    workspace()
}

/// Builds freestanding programs; cargo prints what a person must see. Returns the executables.
///
/// Flags from the environment are for Linux programs (`target-cpu=native`, coverage) and would
/// break a guest that has neither AVX nor a C library.
pub fn cargo_build(manifest: &Path, arguments: &[&str]) -> Result<Vec<PathBuf>> {
    let mut command = process::cargo();
    command
        .args(["build", "--release", "--bins", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .arg("--manifest-path")
        .arg(manifest)
        .args(arguments)
        .env("CARGO_TARGET_DIR", paths::target().join("unikernel-build"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stderr(Stdio::inherit());
    let mut built = Vec::new();
    let done = process::stream(&mut command, |line| built.extend(executable(line)))?;
    ensure!(done, "{} does not build: see the compiler's messages", manifest.display());
    Ok(built)
}

/// The executable that one of cargo's messages announces.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_binary = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "bin");
    let path = message["executable"].as_str()?;
    is_binary.then(|| path.into())
}

/// Copies an executable to `out/NAME.hvt`, whole or not at all.
fn keep(executable: &Path, out: &Path) -> Result<PathBuf> {
    let name = executable.file_name().context("cargo named no file")?.to_string_lossy();
    let image = out.join(format!("{name}.hvt"));
    let partial = out.join(format!(".{name}.hvt.{}", std::process::id()));
    fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    fs::copy(executable, &partial)
        .and_then(|_| fs::rename(&partial, &image))
        .with_context(|| format!("{} cannot be written", image.display()))?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_binaries_are_taken_from_cargos_messages() {
        let message = |kind: &str, executable: &str| {
            format!(r#"{{"target":{{"kind":["{kind}"]}},"executable":{executable}}}"#)
        };
        assert_eq!(executable(&message("bin", r#""/t/x""#)), Some("/t/x".into()));
        assert_eq!(executable(&message("custom-build", r#""/t/x""#)), None);
        assert_eq!(executable(&message("lib", "null")), None);
        assert_eq!(executable("not JSON"), None);
    }

    #[test]
    fn hello_is_an_example() {
        assert!(examples().unwrap().contains(&"hello".to_string()));
    }

    #[test]
    fn an_unknown_example_is_told_with_the_known_ones() {
        let error = build_example("nonesuch").unwrap_err().to_string();
        assert!(error.contains("no example `nonesuch`: there are") && error.contains("hello"));
    }
}
