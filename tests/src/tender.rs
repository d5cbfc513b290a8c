//! The tender's command line, and how it is started.
//!
//! [`Tender`] collects it; [`Tender::run`] waits for the end, [`Tender::spawn`] gives a
//! [`Running`] to talk to.

use crate::pseudoterminal::Pseudoterminal;
use crate::running::{Outcome, Running};
use crate::{environment, limits};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A change to how the process is started.
type Change = Box<dyn FnOnce(&mut Command)>;

/// A command line of the tender.
pub struct Tender {
    program: PathBuf,
    options: Vec<OsString>,
    kernel: Option<PathBuf>,
    arguments: Vec<OsString>,
    inherited: Vec<RawFd>,
    prepare: Option<Change>,
    capture_output: bool,
}

impl Tender {
    /// Runs the unikernel called `name` with 64 MiB, on the backend that is under test.
    pub fn new(name: &str) -> Self {
        Self::of(&environment::unikernel(name))
    }

    /// The same for a file.
    pub fn of(kernel: &Path) -> Self {
        let backend = environment::backend().map(|backend| format!("--backend={backend}"));
        Self { kernel: Some(kernel.to_owned()), ..Self::bare().options(backend) }.mem(64)
    }

    /// Runs the tender with no option and no unikernel.
    pub fn bare() -> Self {
        Self {
            program: environment::tender_path(),
            options: Vec::new(),
            kernel: None,
            arguments: Vec::new(),
            inherited: Vec::new(),
            prepare: None,
            capture_output: true,
        }
    }

    /// Calls the tender by another path.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = path.to_owned();
        self
    }

    /// Adds an option.
    pub fn option(self, option: impl AsRef<OsStr>) -> Self {
        self.options([option])
    }

    /// Adds options.
    pub fn options(mut self, options: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.options.extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Memory of the guest in MiB; the last one counts.
    pub fn mem(self, mebibytes: u32) -> Self {
        self.option(format!("--mem={mebibytes}"))
    }

    /// Attaches a disk.
    pub fn block(self, name: &str, path: &Path) -> Self {
        let mut option = OsString::from(format!("--block:{name}="));
        option.push(path);
        self.option(option)
    }

    /// Attaches a network.
    pub fn net(self, name: &str, spec: &str) -> Self {
        self.option(format!("--net:{name}={spec}"))
    }

    /// Attaches a network by descriptor, which must stay open until the tender is started.
    pub fn net_fd(mut self, name: &str, file: &impl AsRawFd) -> Self {
        self.inherited.push(file.as_raw_fd());
        self.net(name, &format!("@{}", file.as_raw_fd()))
    }

    /// Adds arguments of the unikernel.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Names the unikernel.
    pub fn kernel(mut self, kernel: &Path) -> Self {
        self.kernel = Some(kernel.to_owned());
        self
    }

    /// Starts it at a terminal, to be used with [`Self::spawn_without_output`].
    pub fn at(self, terminal: &Pseudoterminal) -> Self {
        let lend = terminal.lend();
        self.prepare(lend)
    }

    /// Lets the caller change how the process is started.
    pub fn prepare(mut self, change: impl FnOnce(&mut Command) + 'static) -> Self {
        self.prepare = Some(Box::new(change));
        self
    }

    /// Starts it, in a process group of its own.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(self) -> Running {
        let mut command = Command::new(&self.program);
        command.args(self.options);
        if let Some(kernel) = &self.kernel {
            command.arg("--").arg(kernel).args(self.arguments);
        }
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        if self.capture_output {
            command.stdout(Stdio::piped());
        }
        command.process_group(0);
        for fd in self.inherited {
            limits::inherit(&mut command, fd);
        }
        if let Some(change) = self.prepare {
            change(&mut command);
        }
        let shown = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
        Running::new(child, shown)
    }

    /// Starts it with another standard output, which [`Self::prepare`] has set.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn_without_output(mut self) -> Running {
        self.capture_output = false;
        self.spawn()
    }

    /// Runs it to its end with another standard output, which [`Self::prepare`] has set.
    ///
    /// # Panics
    /// If it cannot be started, or takes too long.
    pub fn run_without_output(self) -> Outcome {
        self.spawn_without_output().finish()
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it takes longer than [`PATIENCE`](crate::running::PATIENCE).
    pub fn run(self) -> Outcome {
        self.spawn().finish()
    }
}
