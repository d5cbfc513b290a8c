//! A whole machine under the VM manager: a description, its serial line, its end.

use crate::environment::{linux, manager};
use crate::running::{Outcome, Running};
use crate::scratch::Scratch;
use crate::test_kernel::can_run;
use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

/// A Linux that runs; killed when dropped.
pub struct Machine {
    running: Running,
    input: ChildStdin,
    prompts: usize,
    boots: usize,
    _folder: Scratch,
}

/// How long each stage may take: an emulated machine in an emulated machine, on a busy one.
const STAGE: Duration = Duration::from_secs(300);
/// What its shell prints when it waits.
const PROMPT: &str = "linux# ";
/// Lines on its way to the shell, so that each wait has its own limit.
const STAGES: [&str; 3] = ["Linux version", "Serial: 8250/16550", "Run /init as init process"];

impl Machine {
    /// Boots Linux with so many vCPUs and more lines for `[vm.type1]`, up to its shell. `None`
    /// where these tests cannot, which is then said.
    ///
    /// # Panics
    /// If it does not get there.
    pub fn linux(test: &str, vcpus: u32, more: &str) -> Option<Self> {
        if !can_run(test) {
            return None;
        }
        Some(Self::linux_on("kvm", vcpus, more))
    }

    /// The same on a backend that is known to work here.
    ///
    /// # Panics
    /// If it does not get to its shell, or there is no VM manager.
    pub fn linux_on(backend: &str, vcpus: u32, more: &str) -> Self {
        let manager = manager().expect("REDOX_VM names the VM manager");
        let folder = Scratch::new();
        let description = format!(
            "[vm]\nname = \"linux\"\nvcpus = {vcpus}\nmemory = \"256M\"\n[vm.type1]\n\
             kernel = {:?}\ninitrd = {:?}\ncmdline = \"console=ttyS0 panic=-1\"\n{more}",
            linux("vmlinuz"),
            linux("initramfs.cpio")
        );
        let path = folder.file("linux.toml", description.as_bytes());
        let mut command = Command::new(manager);
        command.args(["run", "-v"]).arg(format!("--backend={backend}")).arg(path);
        let shown = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
        let input = child.stdin.take().expect("it is a pipe");
        let running = Running::new(child, shown);
        let mut machine = Self { running, input, prompts: 0, boots: 0, _folder: folder };
        machine.boots_again();
        machine
    }

    /// Waits for the shell of so many boots. From then on the kernel's console has only its last
    /// words: anything else may stand between a command and what it prints.
    fn boot(&mut self, times: usize) {
        for stage in STAGES {
            self.running.expect_times(stage, times, STAGE);
        }
        self.prompt();
        self.shell("dmesg -n 1");
    }

    /// Waits for one more prompt; gives all that was printed.
    fn prompt(&mut self) -> String {
        self.prompts += 1;
        let prompts = self.prompts;
        self.running.expect_times(PROMPT, prompts, STAGE)
    }

    /// Waits until the shell waits for the next command.
    ///
    /// # Panics
    /// If it does not.
    pub fn prompted(&mut self) {
        self.prompt();
    }

    /// Types a line.
    ///
    /// # Panics
    /// If nobody listens any more.
    pub fn type_line(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).expect("it reads what is typed");
    }

    /// Types a command of less than a line, and gives what it prints.
    ///
    /// # Panics
    /// If no prompt follows.
    pub fn shell(&mut self, command: &str) -> String {
        self.type_line(command);
        let all = self.prompt();
        let last = all.rsplit(PROMPT).nth(1).unwrap_or_default();
        // Its first line is what was typed; the serial line ends lines with CR and LF.
        last.lines().skip(1).map(|line| line.trim_end_matches('\r')).collect::<Vec<_>>().join("\n")
    }

    /// Waits for the shell of another boot, after a reset.
    ///
    /// # Panics
    /// If it does not come.
    pub fn boots_again(&mut self) {
        self.boots += 1;
        self.boot(self.boots);
    }

    /// Resets it in each of these ways, by the names of Linux's `reboot=` option (`reboot_type` in
    /// `Documentation/admin-guide/kernel-parameters.txt`), and waits for its shell after each.
    ///
    /// # Panics
    /// If it does not come.
    pub fn resets_by(&mut self, ways: &[&str]) {
        for way in ways {
            self.shell(&format!("echo {way} > /sys/kernel/reboot/type"));
            assert_eq!(self.shell("cat /sys/kernel/reboot/type"), *way);
            self.type_line("reboot -f");
            self.boots_again();
        }
    }

    /// Sends the manager a signal.
    ///
    /// # Panics
    /// If it is no more.
    pub fn signal(&mut self, signal: i32) {
        self.running.signal(signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not come.
    pub fn wait(self) -> Outcome {
        self.running.finish_within(STAGE)
    }
}
