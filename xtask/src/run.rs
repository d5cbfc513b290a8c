//! `cargo xtask run EXAMPLE`: builds one of the example unikernels and the tender, and runs it; or
//! the example of a whole machine, `linux`.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{image, linux, tender, unikernel};

/// The example that is a whole machine.
const LINUX: &str = "linux";

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub struct Options {
    /// The example: a folder in unikernel/examples, or `linux`
    example: String,
    /// Options for redox-hvt, such as --mem=64 or --block:storage=disk.img; for redox-vm with
    /// `linux`
    #[arg(allow_hyphen_values = true, value_name = "TENDER_OPTION")]
    options: Vec<String>,
    /// The unikernel's own command line
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Becomes the tender; returns only an error.
pub fn run(options: &Options) -> Result<i32> {
    if options.example == LINUX {
        return run_linux(options);
    }
    let image = unikernel::build_example(&options.example)?;
    let mut command = Command::new(tender::build()?);
    command.args(&options.options).arg("--").arg(image).args(&options.arguments);
    Err(command.exec()).context("cannot start the tender")
}

/// Becomes the VM manager. A processor without virtualization gets what emulates one.
fn run_linux(options: &Options) -> Result<i32> {
    linux::build()?;
    let mut command = Command::new(tender::build_manager()?);
    if !linux::has_hardware() {
        command.env("REDOX_HYPERVISOR_IMAGE", image::build()?);
        command.env("PATH", linux::path_with_qemu()?);
    }
    command.arg("run").arg(linux::description()).args(&options.options);
    Err(command.exec()).context("cannot start redox-vm")
}
