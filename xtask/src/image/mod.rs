//! `cargo xtask image`: builds the bare-metal image, and boots it in QEMU on request.

mod pack;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::setup::{programs, rust_src};
use crate::{paths, process};

/// What the image is built for.
const TARGET: &str = "x86_64-unknown-none";
/// QEMU's status when the image leaves with "all well" through `isa-debug-exit`.
const GOOD: i32 = 33;

/// Options of `cargo xtask image`.
#[derive(clap::Args)]
pub struct Options {
    /// Boot it in QEMU, with the serial port here; the status is 0 if the image says all is well
    #[arg(long)]
    run: bool,
    /// The boot module
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// RAM in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// CPUs
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// More arguments for QEMU, such as `-d int`
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    qemu: Option<String>,
    /// The image's command line
    #[arg(last = true, value_name = "WORD")]
    words: Vec<String>,
}

/// Builds, and runs if asked; returns the status.
pub fn run(options: &Options) -> Result<i32> {
    let image = build()?;
    let size = fs::metadata(&image)?.len();
    process::say(&format!("{}: {} KiB", image.display(), size.div_ceil(1024)));
    if !options.run {
        return Ok(0);
    }
    let mut command = programs::qemu()?.command();
    hardware(&mut command, options.memory, options.cpus);
    command.arg("-kernel").arg(&image).arg("-append").arg(options.words.join(" "));
    if let Some(module) = &options.module {
        command.arg("-initrd").arg(module);
    }
    command.args(options.qemu.iter().flat_map(|text| text.split_whitespace()));
    command.args(["-serial", "mon:stdio"]);
    let status = command.stdin(Stdio::inherit()).status().context("cannot start QEMU")?;
    Ok(i32::from(status.code() != Some(GOOD)))
}

/// The machine that the image is tried in.
pub fn hardware(command: &mut Command, memory: u32, cpus: u32) {
    command.args(["-M", "q35", "-cpu", "max", "-accel", "tcg", "-nodefaults"]);
    command.args(["-display", "none", "-no-reboot"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    command.arg("-m").arg(format!("{memory}M")).arg("-smp").arg(cpus.to_string());
}

/// Builds the image and returns where it is.
pub fn build() -> Result<PathBuf> {
    process::say("building the bare-metal image");
    let library = rust_src::standard_library(TARGET)?;
    let target = paths::target().join("image");
    let mut command = process::cargo();
    command.current_dir(paths::root().join("host/baremetal/image"));
    command.args(["build", "--quiet", "--release", "--target", TARGET]);
    library.apply(&mut command);
    if matches!(library, rust_src::StandardLibrary::Source(_)) {
        command.arg("-Zbuild-std-features=compiler-builtins-mem");
    }
    command.env("CARGO_TARGET_DIR", &target);
    // Frame pointers are what a trace follows; the image lies at a fixed address.
    command.env("RUSTFLAGS", "-Crelocation-model=static -Cforce-frame-pointers=yes");
    process::run(&mut command)?;
    let linked = target.join(TARGET).join("release/redox-hypervisor");
    ensure!(linked.is_file(), "cargo built no {}", linked.display());
    let image = target.join("redox-hypervisor.elf");
    fs::write(&image, pack::pack(&fs::read(&linked)?)?)?;
    Ok(image)
}
