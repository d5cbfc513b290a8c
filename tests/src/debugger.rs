//! Debian's gdb, driven by commands.

use crate::environment::on_path;
use crate::running::{Outcome, Running};
use std::path::Path;
use std::process::{Command, Stdio};

/// A command line of gdb.
pub struct Gdb(Command);

impl Gdb {
    /// gdb over this unikernel's symbols, connected to a tender's port; none where there is no
    /// gdb on `PATH`.
    pub fn new(kernel: &Path, port: u16) -> Option<Self> {
        let mut command = Command::new(on_path("gdb")?);
        command.args(["-batch", "-nx", "-ex", "set confirm off", "-ex", "set width 0"]);
        command.arg(kernel);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Some(Self(command).then(&[&format!("target remote 127.0.0.1:{port}")]))
    }

    /// Adds commands.
    pub fn then(mut self, commands: &[&str]) -> Self {
        for command in commands {
            self.0.args(["-ex", command]);
        }
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(mut self) -> Running {
        let shown = format!("{:?}", self.0);
        let child = self.0.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
        Running::new(child, shown)
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it takes too long.
    pub fn run(self) -> Outcome {
        self.spawn().finish()
    }
}
