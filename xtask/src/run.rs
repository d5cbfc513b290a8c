//! `cargo xtask run EXAMPLE`: builds one of the example unikernels and the tender, and runs it; the
//! example of a whole machine, `linux`; or any description, a file that ends in `.toml`.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::{image, linux, tender, unikernel};

/// The example that is a whole machine.
const LINUX: &str = "linux";
/// The VM manager's option that needs our image and QEMU.
const QEMU: &str = "--backend=qemu";

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub struct Options {
    /// A folder in unikernel/examples, `linux`, or the file NAME.toml of a VM's description
    example: String,
    /// Options for redox-hvt, such as --mem=64 or --block:storage=disk.img; for redox-vm, such as
    /// -v or --backend=qemu, with `linux` or a description
    #[arg(allow_hyphen_values = true, value_name = "TENDER_OPTION")]
    options: Vec<String>,
    /// The unikernel's own command line
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Becomes the tender; returns only an error.
pub fn run(options: &Options) -> Result<i32> {
    if options.example == LINUX {
        linux::build()?;
        return run_described(&linux::description(), options);
    }
    let description = Path::new(&options.example);
    if description.extension().is_some_and(|extension| extension == "toml") {
        return run_described(description, options);
    }
    let image = unikernel::build_example(&options.example)?;
    let mut command = Command::new(tender::build()?);
    command.args(&options.options).arg("--").arg(image).args(&options.arguments);
    Err(command.exec()).context("cannot start the tender")
}

/// Becomes the VM manager. A machine on a processor without virtualization gets what emulates one,
/// and so does whoever asks for it.
fn run_described(description: &Path, options: &Options) -> Result<i32> {
    let manager = tender::build_manager()?;
    let asked = options.options.iter().any(|option| option == QEMU);
    let mut command = Command::new(&manager);
    if asked || !linux::has_hardware() && is_machine(&manager, description) {
        command.env("REDOX_HYPERVISOR_IMAGE", image::build()?);
        command.env("PATH", linux::path_with_qemu()?);
    }
    command.arg("run").arg(description).args(&options.options);
    Err(command.exec()).context("cannot start redox-vm")
}

/// Whether a description is of more than a unikernel. What is wrong with it is told when it is run.
fn is_machine(manager: &Path, description: &Path) -> bool {
    let mut check = Command::new(manager);
    check.arg("check").arg(description).stderr(Stdio::null());
    let told = check.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&told).lines().next().is_some_and(|line| line.contains(": mode type1:"))
}
