//! core and alloc for the bare-metal targets: rustup's where they are installed, else built from
//! the source in Debian's `rust-src` of exactly this compiler's version.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{self, Apt};
use super::programs;
use crate::process;

/// The bare-metal targets.
pub const BARE_METAL: [&str; 3] =
    ["x86_64-unknown-none", "aarch64-unknown-none-softfloat", "riscv64gc-unknown-none-elf"];

/// Where a target's core and alloc come from.
pub enum StandardLibrary {
    /// Built already, beside the compiler.
    Installed,
    /// To be built from the source in this folder.
    Source(PathBuf),
}

impl StandardLibrary {
    /// Makes a cargo command that builds for one of [`BARE_METAL`] use it.
    pub fn apply(&self, command: &mut Command) {
        if let Self::Source(folder) = self {
            command.arg("-Zbuild-std=core,alloc");
            command.env("RUSTC_BOOTSTRAP", "1");
            // Where cargo looks for the library's source in place of the compiler's own folder,
            // which this run may not be allowed to write.
            command.env("__CARGO_TESTS_ONLY_SRC_ROOT", folder);
        }
    }
}

impl fmt::Display for StandardLibrary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Installed => write!(out, "installed"),
            Self::Source(folder) => write!(out, "built from {}", folder.display()),
        }
    }
}

/// Finds, and fetches if need be, what a build for `target` takes core and alloc from.
pub fn standard_library(target: &str) -> Result<StandardLibrary> {
    let rustc = || Command::new("rustc");
    let libraries =
        process::capture(rustc().args(["--print", "target-libdir", "--target", target]))?;
    if Path::new(libraries.trim()).exists() {
        return Ok(StandardLibrary::Installed);
    }
    let root = process::capture(rustc().args(["--print", "sysroot"]))?;
    let own = Path::new(root.trim()).join("lib/rustlib/src/rust/library");
    if own.join("core/src/lib.rs").exists() {
        return Ok(StandardLibrary::Source(own));
    }
    let text = process::capture(rustc().arg("-vV"))?;
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("release: "))
        .context("`rustc -vV` names no release")?;
    Ok(StandardLibrary::Source(source_of(version)?))
}

fn source_of(version: &str) -> Result<PathBuf> {
    let folder = programs::packages()?.join(format!("rust-src-{version}"));
    let library = folder.join("usr/src").join(format!("rustc-{version}")).join("library");
    if !library.join("core/src/lib.rs").exists() {
        let apt = Apt::over(&suites()?)?;
        let versions = apt.versions("rust-src")?;
        let exact = format!("{version}+");
        let found = versions.iter().find(|v| v.starts_with(&exact)).with_context(|| {
            format!(
                "Debian has no rust-src {version} (it has {}): `rustup target add {}` \
                 or another compiler version helps",
                versions.join(", "),
                BARE_METAL.join(" ")
            )
        })?;
        apt.unpack(&format!("rust-src={found}"), false, &folder)?;
    }
    Ok(library)
}

/// The suites where compilers of many versions are, whatever this Debian is.
fn suites() -> Result<Vec<String>> {
    let mut suites = vec![apt::codename()?];
    for more in ["trixie", "trixie-backports"] {
        if suites[0] != more {
            suites.push(more.to_owned());
        }
    }
    Ok(suites)
}
