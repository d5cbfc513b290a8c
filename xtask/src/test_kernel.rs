//! The test kernel (`tests/kernel`): the guest operating system of the Type 1 tests.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{paths, unikernel};

/// Builds it; returns its ELF file, which boots by PVH.
pub fn build() -> Result<PathBuf> {
    let manifest = paths::root().join("tests/kernel/Cargo.toml");
    let built = unikernel::cargo_build(&manifest, &[])?;
    built.into_iter().next().context("tests/kernel builds no program")
}
