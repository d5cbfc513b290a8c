//! `cargo xtask image`: builds the bare-metal image, and boots it in QEMU on request.

mod pack;

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::setup::{programs, rust_src};
use crate::{paths, process};

/// What the image is built for.
const TARGET: &str = "x86_64-unknown-none";
/// QEMU's status when the image leaves with "all well" through `isa-debug-exit`.
pub const GOOD: i32 = 33;

/// Options of `cargo xtask image`.
#[derive(clap::Args)]
pub struct Options {
    /// Boot it in QEMU, with the serial port here; the status is 0 if the image says all is well
    #[arg(long)]
    run: bool,
    /// Run the image's tests in QEMU
    #[arg(long)]
    test: bool,
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
    if options.test {
        let tally = crate::check::image::boot(None)?;
        println!("{tally}");
        return Ok(i32::from(tally.failed > 0));
    }
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

/// What an image that was booted printed, and QEMU's status.
pub struct Boot {
    /// The serial port's lines.
    pub lines: Vec<String>,
    /// QEMU's status, [`GOOD`] where the image said that all is well.
    pub status: Option<i32>,
}

/// Boots an image with a command line, without input, and ends it after `limit` at the latest.
pub fn boot(image: &Path, cpus: u32, words: &str, limit: Duration) -> Result<Boot> {
    let mut qemu = programs::qemu()?.command();
    hardware(&mut qemu, 512, cpus);
    qemu.arg("-kernel").arg(image).args(["-append", words, "-serial", "stdio"]);
    let mut command = crate::qemu::bounded(&qemu, limit);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start QEMU")?;
    let output = child.stdout.take().context("no pipe to QEMU")?;
    let mut lines = Vec::new();
    process::each_line(BufReader::new(output), &mut |line| lines.push(line.to_owned()))?;
    Ok(Boot { lines, status: child.wait()?.code() })
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
