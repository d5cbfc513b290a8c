//! `cargo xtask run EXAMPLE`: builds one of the example unikernels and the tender, and runs it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{tender, unikernel};

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub struct Options {
    /// The example: a folder in unikernel/examples
    example: String,
    /// Options for redox-hvt, such as --mem=64 or --block:storage=disk.img
    #[arg(allow_hyphen_values = true, value_name = "TENDER_OPTION")]
    options: Vec<String>,
    /// The unikernel's own command line
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Becomes the tender; returns only an error.
pub fn run(options: &Options) -> Result<i32> {
    let image = unikernel::build_example(&options.example)?;
    let mut command = Command::new(tender::build()?);
    command.args(&options.options).arg("--").arg(image).args(&options.arguments);
    Err(command.exec()).context("cannot start the tender")
}
