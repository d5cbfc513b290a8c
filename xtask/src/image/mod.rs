//! `cargo xtask image`: builds the bare-metal image, and boots it in QEMU on request.

pub mod bundle;
pub mod iso;
mod pack;

use std::fs;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::setup::{boot_disc, programs, rust_src};
use crate::{paths, process};

/// Memory of the machine beside a boot module, in MiB.
const LEAST_MEMORY: u64 = 64;
/// What the image is built for.
const TARGET: &str = "x86_64-unknown-none";
/// QEMU's status when the image leaves with "all well" through `isa-debug-exit`.
pub const GOOD: i32 = 33;

/// A word for a machine with several CPUs: guests are kept off the first one, where QEMU's emulation
/// has a race (docs/testing.md, "The test machine").
pub const GUESTS: &str = "guest-cpus=1-";

/// Options of `cargo xtask image`.
#[derive(clap::Args)]
pub struct Options {
    /// Boot it in QEMU, with the serial port here; Ctrl-A x leaves. The status is 0 after
    /// `poweroff`, or, with `-- exit` or `-- selftest`, if the image says that all is well
    #[arg(long)]
    run: bool,
    /// Run the image's tests in QEMU, or those whose name contains NAME
    #[arg(long, value_name = "NAME")]
    test: Option<Option<String>>,
    /// The boot module
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Files and folders to make the boot module of, in place of --module
    #[arg(long, value_name = "PATH", conflicts_with = "module")]
    bundle: Vec<PathBuf>,
    /// RAM in MiB, 64 or more: for the image, the boot module and all guests
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u32).range(64..))]
    memory: u32,
    /// CPUs, 1 to 255
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// More arguments for QEMU, such as `-d int`
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    qemu: Option<String>,
    /// The image's command line, such as `exit`, `attach=NAME`, `log=debug`: see docs/baremetal.md;
    /// with several CPUs guest-cpus=1- is added if it says none
    #[arg(last = true, value_name = "WORD")]
    words: Vec<String>,
}

/// Builds, and runs if asked; returns the status.
pub fn run(options: &Options) -> Result<i32> {
    if let Some(filter) = &options.test {
        let filter = filter.as_deref();
        let mut tally = crate::check::image::boot(filter)?;
        tally.add(crate::check::machines::boot(filter)?);
        println!("{tally}");
        return Ok(i32::from(tally.failed > 0));
    }
    let has = |word: &str| options.words.iter().any(|other| other == word);
    let image = if has(SELF_TEST) {
        build_with_self_test()?
    } else if has(MEASUREMENT) {
        build_with_measurements()?
    } else {
        build()?
    };
    let size = fs::metadata(&image)?.len();
    process::say(&format!("{}: {} KiB", image.display(), size.div_ceil(1024)));
    if !options.run {
        return Ok(0);
    }
    let mut command = programs::qemu()?.command();
    hardware(&mut command, options.memory, options.cpus);
    let mut words = options.words.clone();
    if options.cpus > 1 && !words.iter().any(|word| word.starts_with("guest-cpus=")) {
        words.push(GUESTS.to_owned());
    }
    command.arg("-kernel").arg(&image).arg("-append").arg(words.join(" "));
    let bundled = paths::work("image")?.join("bundle.cpio");
    let module = match options.bundle.is_empty() {
        true => options.module.as_ref(),
        false => {
            fs::write(&bundled, bundle::make(&options.bundle)?)?;
            Some(&bundled)
        }
    };
    if let Some(module) = module {
        let size = fs::metadata(module)
            .with_context(|| format!("cannot read {}", module.display()))?
            .len()
            .div_ceil(1 << 20);
        let least = size + LEAST_MEMORY;
        ensure!(
            least <= options.memory.into(),
            "the boot module has {size} MiB, and the machine {} MiB of memory for all: \
             --memory {least} or more",
            options.memory
        );
        command.arg("-initrd").arg(module);
    }
    command.args(options.qemu.iter().flat_map(|text| text.split_whitespace()));
    command.args(["-serial", "mon:stdio"]);
    let qemu = process::tie(command.stdin(Stdio::inherit()));
    let status = qemu.status().context("cannot start QEMU")?;
    Ok(i32::from(!is_good(status.code(), has("exit") || has(SELF_TEST))))
}

/// Whether a run by a person ended well: by `poweroff` or QEMU's keys, too, unless it was to say
/// how it ended.
fn is_good(status: Option<i32>, says: bool) -> bool {
    status == Some(GOOD) || status == Some(0) && !says
}

/// What an image that was booted printed, and QEMU's status.
pub struct Boot {
    /// What came from the serial port.
    pub text: String,
    /// QEMU's status, [`GOOD`] where the image said that all is well.
    pub status: Option<i32>,
}

/// How an image is started.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// By QEMU itself, with PVH.
    Kernel {
        /// The image.
        image: &'a Path,
        /// Its command line.
        words: &'a str,
        /// The boot module.
        module: Option<&'a Path>,
    },
    /// From a disc, by the BIOS.
    DiscByBios(&'a Path),
    /// From a disc, by UEFI.
    DiscByUefi(&'a Path),
}

impl Start<'_> {
    fn add(self, qemu: &mut Command) -> Result<()> {
        match self {
            Self::Kernel { image, words, module } => {
                qemu.arg("-kernel").arg(image).args(["-append", words]);
                if let Some(module) = module {
                    qemu.arg("-initrd").arg(module);
                }
            }
            Self::DiscByBios(disc) => drop(qemu.arg("-cdrom").arg(disc)),
            Self::DiscByUefi(disc) => {
                let code = boot_disc::uefi()?;
                let drive = format!("if=pflash,format=raw,readonly=on,file={}", code.display());
                qemu.arg("-drive").arg(drive).arg("-cdrom").arg(disc);
            }
        }
        Ok(())
    }
}

/// A boot of an image, without a person.
pub struct Trial<'a> {
    /// What the machine starts.
    pub start: Start<'a>,
    /// CPUs of the machine.
    pub cpus: u32,
    /// More arguments for QEMU.
    pub devices: &'a [String],
    /// What is typed, one line after the other: each when what is before it was just printed.
    pub typed: &'a [(&'a str, &'a str)],
}

/// The console's prompt.
pub const PROMPT: &str = "hv> ";
/// A machine that is not done by then is ended. The image's boot takes about two seconds, a guest's
/// Linux twenty, and several times that on a busy machine.
const LIMIT: Duration = Duration::from_secs(400);

impl Trial<'_> {
    /// Boots it in QEMU.
    pub fn boot(&self) -> Result<Boot> {
        let mut qemu = programs::qemu()?.command();
        hardware(&mut qemu, 512, self.cpus);
        self.start.add(&mut qemu)?;
        qemu.args(self.devices);
        qemu.args(["-serial", "stdio"]);
        let mut command = crate::qemu::bounded(&qemu, LIMIT);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start QEMU")?;
        let mut input = child.stdin.take().context("no pipe to QEMU")?;
        let output = child.stdout.take().context("no pipe from QEMU")?;
        let mut shown = Vec::new();
        let mut typed = self.typed.iter().peekable();
        for byte in BufReader::new(output).bytes() {
            shown.push(byte?);
            if let Some((_, line)) = typed.next_if(|(after, _)| shown.ends_with(after.as_bytes())) {
                // QEMU may have ended: then there is no more output either.
                let _ = write!(input, "{line}\r").and_then(|()| input.flush());
            }
        }
        let text = String::from_utf8_lossy(&shown).replace('\r', "");
        Ok(Boot { text, status: child.wait()?.code() })
    }
}

/// The machine that the image is tried in.
pub fn hardware(command: &mut Command, memory: u32, cpus: u32) {
    command.args(["-M", "q35", "-cpu", "max", "-accel", "tcg", "-nodefaults"]);
    command.args(["-display", "none", "-no-reboot"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    command.arg("-m").arg(format!("{memory}M")).arg("-smp").arg(cpus.to_string());
}

/// The word of its command line that only an image with its self-test knows.
const SELF_TEST: &str = "selftest";
/// The same of measurements.
const MEASUREMENT: &str = "bench";

/// Builds the image and returns where it is.
pub fn build() -> Result<PathBuf> {
    build_with(&[], "redox-hypervisor.elf")
}

/// Builds the image with its self-test in it, and the checks that this makes at every entry of a
/// guest, and returns where it is.
pub fn build_with_self_test() -> Result<PathBuf> {
    build_with(&["--features", "audit"], "redox-hypervisor-self-test.elf")
}

/// Builds the image with measurements of single parts in it, and returns where it is.
fn build_with_measurements() -> Result<PathBuf> {
    build_with(&["--features", "self-test"], "redox-hypervisor-bench.elf")
}

fn build_with(options: &[&str], name: &str) -> Result<PathBuf> {
    process::say(&format!("building the bare-metal image, {name}"));
    let library = rust_src::standard_library(TARGET)?;
    let target = paths::target().join("image");
    let mut command = process::cargo();
    command.current_dir(paths::root().join("host/baremetal/image"));
    command.args(["build", "--quiet", "--release", "--target", TARGET]).args(options);
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
    let image = target.join(name);
    fs::write(&image, pack::pack(&fs::read(&linked)?)?)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::{GOOD, is_good};

    #[test]
    fn a_power_off_is_good_unless_a_verdict_was_asked_for() {
        assert!(is_good(Some(GOOD), true) && is_good(Some(GOOD), false));
        assert!(is_good(Some(0), false) && !is_good(Some(0), true));
        assert!(!is_good(Some(35), false) && !is_good(Some(1), true) && !is_good(None, false));
    }
}
