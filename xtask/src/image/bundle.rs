//! `cargo xtask bundle`: descriptions of VMs and what they name, as one boot module.
//!
//! It is made by `tools/bundle`, which reads descriptions and so takes the whole core: a program of
//! its own, that whoever only runs a unikernel need not build.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::setup::firmware::Firmware;
use crate::{paths, process};

/// As a process has it.
const NO_FIRMWARE: i32 = vm_bundle::NO_FIRMWARE as i32;

/// Options of `cargo xtask bundle`.
#[derive(clap::Args)]
pub struct Options {
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Files, and folders with all that is in them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Writes it.
pub fn run(options: &Options) -> Result<()> {
    write(&options.paths, &options.output)?;
    let size = fs::metadata(&options.output)?.len();
    process::say(&format!("{}: {} KiB", options.output.display(), size.div_ceil(1024)));
    Ok(())
}

/// The archive of these files and folders.
pub fn make(paths: &[PathBuf]) -> Result<Vec<u8>> {
    let file = paths::work("bundle")?.join(format!("{}.cpio", std::process::id()));
    write(paths, &file)?;
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()));
    fs::remove_file(&file)?;
    bytes
}

fn write(paths: &[PathBuf], output: &Path) -> Result<()> {
    match start(paths, output, None)? {
        0 => Ok(()),
        NO_FIRMWARE => {
            let file = Firmware::SeaBios.file().context(
                "a machine of the bundle boots a disk, and SeaBIOS is neither here nor to be had: \
                 install it, or name a `firmware` in [vm.type1]",
            )?;
            ensure!(start(paths, output, Some(&file))? == 0, "no bundle was made");
            Ok(())
        }
        _ => bail!("no bundle was made"),
    }
}

/// The status of the program that makes it.
fn start(paths: &[PathBuf], output: &Path, firmware: Option<&Path>) -> Result<i32> {
    let mut command = process::cargo();
    // Paths are the caller's: from the folder that they are given in.
    command.current_dir(std::env::current_dir()?);
    command.args(["run", "--quiet", "--manifest-path"]).arg(paths::root().join("Cargo.toml"));
    command.args(["--package", "vm-bundle", "--features", "descriptions", "--"]);
    command.arg("--output").arg(output);
    if let Some(firmware) = firmware {
        command.arg("--firmware").arg(firmware);
    }
    process::status(command.args(paths))
}
