//! Test machines: an emulated x86 PC with SVM (QEMU's TCG, no hardware help) that boots Linux
//! with its KVM, runs one shell script and powers off.
//!
//! No guest may run on a machine's first CPU beside others: QEMU keeps "nested paging is on" and
//! "global interrupts are on" of a CPU in one word (`hflags2`), and each FPU restore on any CPU
//! rewrites the first CPU's word without a lock (`cpu_clear_ignne`, last seen in QEMU 10). What
//! VMRUN or #VMEXIT changes there at that moment is undone: a guest then writes to the machine's
//! own memory, or its kernel runs with the guest's page tables. So the script, and all it starts,
//! has the other CPUs.
//!
//! Order of calls: [`initramfs::Files`] collects what the machine shall hold, [`Machine::run`]
//! boots it, hands over what the script prints and returns its status.

pub mod count;
pub mod initramfs;

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::setup::{kernel, programs};
use crate::{cc, paths, process};
use initramfs::Files;

/// Modules that a machine loads at start: KVM for SVM, and TAP devices.
const MODULES: [&str; 2] = ["kvm_amd", "tun"];
/// timeout(1)'s status where it had to send SIGKILL.
const KILLED_BY_TIMEOUT: i32 = 137;
/// The line on the kernel's console that carries the script's status.
const STATUS: &str = "xtask-vm: status ";

/// What a test machine is like.
pub struct Machine {
    /// Its folder under `target/xtask/vm`, for the image and the kernel's log.
    pub name: String,
    /// RAM in MiB.
    pub memory: u32,
    /// CPUs, the first of which is not the script's if there are more; with `count` always one.
    pub cpus: u32,
    /// Count instructions: time is then instructions too, and a run repeats exactly.
    pub count: bool,
    /// After this it is ended.
    pub timeout: Duration,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            name: "vm".to_owned(),
            memory: 2048,
            cpus: 3,
            count: false,
            timeout: Duration::from_secs(900),
        }
    }
}

/// How a script ended.
pub struct Outcome {
    /// Its exit status, 0 to 255.
    pub status: i32,
    /// Instruction counts at each marker and at the end, if the machine counted.
    pub counts: Vec<count::Count>,
}

impl Machine {
    /// Boots with `files`, runs `script` by `/bin/sh`, hands over each line it prints as it
    /// comes, powers off.
    ///
    /// # Errors
    /// Packages that cannot be fetched; a machine that did not get to the script's end in time.
    pub fn run(&self, files: Files, script: &str, mut line: impl FnMut(&str)) -> Result<Outcome> {
        let folder = paths::work("vm")?.join(&self.name);
        fs::create_dir_all(&folder)?;
        // Its files are there once: a second machine of this name waits for the first's end.
        let lock = fs::File::create(folder.join("lock"))?;
        lock.lock().context("cannot lock the test machine's folder")?;
        let kernel = kernel::get()?;
        let image = folder.join("initramfs.cpio");
        fs::write(&image, userland(files, script, &kernel, self.emulated_cpus())?)?;
        let log = folder.join("kernel.log");
        let counts = folder.join("counts");
        for stale in [&log, &counts] {
            let _ = fs::remove_file(stale);
        }

        let mut command = programs::qemu()?.command();
        self.hardware(&mut command);
        if self.count {
            command.args(["-icount", "shift=0,sleep=off", "-seed", "1"]);
            command.args(["-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
            command.arg("-plugin").arg(count::plugin_option(&counts)?);
        }
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&image);
        command.args(["-append", "console=ttyS0 panic=-1 nokaslr quiet loglevel=4"]);
        command.arg("-serial").arg(format!("file:{}", log.display()));
        command.args(["-serial", "stdio"]);

        self.watch(&command, &mut line)?;
        let status = status(&log)?;
        let counts = if self.count { count::read(&counts)? } else { Vec::new() };
        Ok(Outcome { status, counts })
    }

    fn hardware(&self, command: &mut Command) {
        let thread = if self.count { "single" } else { "multi" };
        command.args(["-M", "q35", "-cpu", "max", "-nodefaults", "-display", "none", "-no-reboot"]);
        command.arg("-accel").arg(format!("tcg,thread={thread}"));
        command.arg("-smp").arg(self.emulated_cpus().to_string());
        command.arg("-m").arg(format!("{}M", self.memory));
    }

    fn emulated_cpus(&self) -> u32 {
        if self.count { 1 } else { self.cpus }
    }

    /// Runs QEMU and reads the second serial port until the machine is off.
    fn watch(&self, qemu: &Command, line: &mut dyn FnMut(&str)) -> Result<()> {
        let mut command = bounded(qemu, self.timeout);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start `timeout` (Debian: coreutils)")?;
        let source = child.stdout.take().context("no pipe to QEMU")?;
        let mut last = String::new();
        process::each_line(BufReader::new(source), &mut |text| {
            last.clear();
            last.push_str(text);
            line(text);
        })?;
        let status = child.wait()?;
        let limit = self.timeout.as_secs();
        match status.code() {
            Some(0) => Ok(()),
            Some(KILLED_BY_TIMEOUT) => {
                bail!("the test machine was not done after {limit} s; it printed last: {last}")
            }
            _ => bail!("QEMU ended with {status}"),
        }
    }
}

/// The same command under timeout(1), which ends the machine even if this program is gone.
pub fn bounded(qemu: &Command, limit: Duration) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", &limit.as_secs().to_string()]);
    command.arg(qemu.get_program()).args(qemu.get_args());
    command.envs(qemu.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

/// The whole initramfs: `files` over the userland that every machine has.
fn userland(mut files: Files, script: &str, kernel: &kernel::Kernel, cpus: u32) -> Result<Vec<u8>> {
    files.add_file("/bin/busybox", &programs::busybox()?)?;
    files.add_link("/bin/sh", "busybox");
    let mut load = String::new();
    for (name, contents) in kernel.modules(&MODULES)? {
        let path = format!("/lib/modules/{name}");
        load.push_str(&format!("insmod {path}\n"));
        files.add_bytes(&path, 0o644, contents);
    }
    files.add_bytes("/script", 0o755, script.into());
    // What the two of them avoid happens with several CPUs only.
    let several = cpus > 1;
    if several {
        let keeper = cc::compile("machine/keep-vm.c", "keep-vm", &cc::FREESTANDING)?;
        files.add_file("/bin/keep-vm", &keeper)?;
    }
    let init = include_str!("init.sh")
        .replace("@LOAD@", &load)
        .replace("@KEEP@", if several { "keep-vm &" } else { "" })
        .replace("@PIN@", &pin(cpus));
    files.add_bytes("/init", 0o755, init.into());
    files.archive()
}

/// What keeps a command off the first of more CPUs.
fn pin(cpus: u32) -> String {
    if cpus < 2 { String::new() } else { format!("taskset -c 1-{}", cpus - 1) }
}

/// The status that `init.sh` wrote to the kernel's console.
fn status(log: &Path) -> Result<i32> {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let found = text.lines().rev().find_map(|line| line.trim_end().split_once(STATUS));
    found.and_then(|(_, number)| number.parse().ok()).with_context(|| {
        format!(
            "the test machine died before its script ended; its kernel said last ({}):\n{}",
            log.display(),
            tail(&text, 25)
        )
    })
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// A dynamic program's interpreter and libraries, as `ldd` finds them.
pub fn libraries(program: &Path) -> Vec<PathBuf> {
    libraries_in(program, &[])
}

/// The same, with some of them in these folders.
fn libraries_in(program: &Path, folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut command = Command::new("ldd");
    if let (false, Ok(path)) = (folders.is_empty(), std::env::join_paths(folders)) {
        command.env("LD_LIBRARY_PATH", path);
    }
    let Ok(text) = process::capture(command.arg(program)) else {
        return Vec::new();
    };
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::pin;

    #[test]
    fn the_first_cpu_is_left_out_if_there_are_others() {
        assert_eq!([1, 2, 3].map(pin), ["", "taskset -c 1-1", "taskset -c 1-2"]);
    }
}
