//! `--backend=qemu`: a VM of any mode where there is no hardware to run it on. Our bare-metal image
//! runs it, in QEMU's emulated processor, which has SVM.
//!
//! The description and what it names go in as one archive, in memory. The serial line is this
//! terminal. The guest's status comes back through QEMU's debug console (port 0xe9), as the image
//! writes it there.

mod child;
mod cpus;
mod devices;
mod handed;
mod programs;

use crate::bundle::Archive;
use crate::description::Description;
use crate::obstacles;
use crate::run::Options;
use child::Ended;
use cpus::Cpus;
use devices::Devices;
use handed::Handed;
use hypervisor::config::{ModeSpecificConfig, VmConfig};
use redox_hvt::tell;
use rustix::termios::isatty;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// Memory of the machine beside the guest's own and the archive: the image, its tables, stacks.
const OVERHEAD: u64 = 96 << 20;
/// QEMU's status where the image says that all went well: twice 16, and one.
const GOOD: i32 = 33;
/// And where it says that something did not.
const BAD: i32 = 35;

/// Runs the VM and gives the status to exit with.
///
/// # Errors
/// In words for a person.
pub fn run(description: &Description, options: &Options) -> Result<i32, String> {
    if options.stats.is_some() {
        return Err("--stats cannot be used with --backend=qemu, which this VM gets here".into());
    }
    if options.console_gone.is_some() {
        return Err("--console-gone cannot be used with --backend=qemu, which this VM gets here: \
                    QEMU goes on"
            .into());
    }
    let file = options.config.file_stem().unwrap_or_default().to_string_lossy();
    let folder = options.config.parent().unwrap_or(Path::new(""));
    run_text(&description.vm, &file, &description.text, folder, options.verbose)
}

/// Checks that what this backend needs is there.
///
/// # Errors
/// If not: in words for a person.
pub fn is_there() -> Result<(), String> {
    programs::qemu().and_then(|_| programs::image()).map(drop)
}

/// The same for a description that need not be in a file; its paths are relative to `folder`, and
/// messages call it `file`.
///
/// # Errors
/// In words for a person.
pub fn run_text(
    vm: &VmConfig,
    file: &str,
    text: &str,
    folder: &Path,
    verbose: bool,
) -> Result<i32, String> {
    let mut found = obstacles::files(vm).into_iter().chain(obstacles::networks(vm));
    if let Some(first) = found.next() {
        return Err(first);
    }
    obstacles::cut_disks(vm).iter().for_each(tell::warn);
    let mut devices = Devices::default();
    let cpus = Cpus::of(vm)?;
    let text = cpus.renumber(devices.take(text, folder)?)?;
    let mut archive = Archive::default();
    archive.add_text(file, &text, folder)?;
    let bytes = archive.bytes().map_err(|e| format!("cannot make the boot module: {e}"))?;
    let module = Handed::new("module", &bytes)?;
    let status = Handed::new("status", &[])?;
    let memory = vm.memory.saturating_add(bytes.len() as u64).saturating_add(OVERHEAD);
    let qemu = programs::qemu()?;
    if let Some(doubt) = programs::doubt(&qemu) {
        tell::warn(doubt);
    }
    let mut command = Command::new(qemu);
    hardware(&mut command, memory, cpus.count);
    console(&mut command);
    devices.plug(&mut command);
    command.arg("-kernel").arg(programs::image()?).arg("-initrd").arg(module.path());
    command.arg("-append").arg(words(vm, &cpus, verbose));
    command.arg("-debugcon").arg(format!("file:{}", status.path()));
    if verbose {
        tell::warn("backend: qemu (our bare-metal image in an emulated processor)");
    }
    match child::run(&mut command)? {
        Ended::Itself(ended) => told(&ended, &status.contents()),
        Ended::BySignal(signal) => {
            tell::hurry();
            tell::warn(format_args!("Exiting on signal {signal}"));
            Ok(1)
        }
    }
}

/// The image's command line: this VM has the whole terminal, and its end is the end. It is called
/// by its number, as its name may have blanks. A unikernel reads nothing, so it needs no console
/// that reads.
fn words(vm: &VmConfig, cpus: &Cpus, verbose: bool) -> String {
    let level = if verbose { "info" } else { "warn" };
    let reads = matches!(vm.mode_config, ModeSpecificConfig::Type1(_));
    let console = if reads { "on" } else { "off" };
    let cpus = cpus.word();
    format!("attach=1 exit console={console} log={level}{cpus}")
}

fn hardware(command: &mut Command, memory: u64, cpus: usize) {
    command.args(["-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi", "-nodefaults"]);
    command.args(["-display", "none", "-no-reboot"]);
    // What it does not need to serve a machine: other programs, other users' rights, the scheduler.
    let off = "obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
    command.arg("-sandbox").arg(format!("on,{off}"));
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    command.arg("-m").arg(format!("{}M", memory.div_ceil(1 << 20)));
    command.arg("-smp").arg(cpus.to_string());
}

/// The serial line is standard input and output. At a terminal QEMU has the same keys as we have:
/// Ctrl-A x leaves, Ctrl-A h tells them.
fn console(command: &mut Command) {
    let mux = if isatty(rustix::stdio::stdin()) { "on" } else { "off" };
    command.arg("-chardev").arg(format!("stdio,id=console,signal=off,mux={mux}"));
    command.args(["-serial", "chardev:console"]);
}

/// The guest's status, by what the image has written and how QEMU has ended.
fn told(ended: &ExitStatus, written: &str) -> Result<i32, String> {
    let last = |word: &str| written.lines().rev().find_map(|line| line.strip_prefix(word));
    let status = last("status ");
    match (status.and_then(|number| number.trim().parse().ok()), ended.code()) {
        (Some(status), _) => Ok(status),
        // QEMU was left by its keys.
        (None, Some(0 | GOOD)) => Ok(0),
        (None, Some(BAD)) => {
            Err(last("failure ").unwrap_or("the guest did not end well; -v tells more").to_owned())
        }
        (None, _) => Err(format!("QEMU ended with {ended}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_guests_status_comes_first() {
        let ended = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(told(&ended(BAD), "status 7\n"), Ok(7));
        assert_eq!(told(&ended(GOOD), ""), Ok(0));
        assert_eq!(told(&ended(0), "noise\n"), Ok(0));
        assert!(told(&ended(BAD), "").is_err());
        assert_eq!(told(&ended(BAD), "failure of some sort\n"), Err("of some sort".to_owned()));
        assert!(told(&ended(1), "status x\n").is_err());
    }
}
