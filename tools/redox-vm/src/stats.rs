//! `--stats` of a whole machine: one JSON object when it has ended. A unikernel's are the
//! tender's.

use host_linux::confine::Rule;
use host_program::output::OutputFile;
use hypervisor::vm::{Cause, Exits, Snapshot};
use redox_hvt::tell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Where counters go.
pub struct StatsFile(
    /// `None` is standard output.
    Option<File>,
);

impl StatsFile {
    /// Opens it; `-` is standard output. `inputs` are the files that the run reads or lends.
    ///
    /// # Errors
    /// In words for a person.
    pub fn open<P: AsRef<Path>>(
        path: &OsStr,
        inputs: impl IntoIterator<Item = P>,
    ) -> Result<Self, String> {
        if path == "-" {
            return Ok(Self(None));
        }
        let opened = OutputFile::create(Path::new(path), inputs).and_then(OutputFile::finish);
        opened.map(|file| Self(Some(file.into()))).map_err(|e| format!("--stats: {e}"))
    }

    /// The system call that writing takes.
    pub fn rule(&self) -> Option<Rule> {
        let file = self.0.as_ref()?;
        Some(Rule::on_fd(libc::SYS_write, file.as_raw_fd(), "counters"))
    }

    /// Writes the counters.
    pub fn write(mut self, backend: &str, of: &Snapshot, start_ns: u64, boot_ns: u64) {
        let now = host_linux::clock::monotonic_ns();
        let text = format!(
            "{{\"backend\":\"{backend}\",\"vcpus\":{},\"memory\":{},\"exits\":{},\"exits_by_cause\":{{{}}},\"boot_ns\":{},\
             \"run_ns\":{}}}\n",
            of.vcpus,
            of.memory,
            of.exits.total(),
            causes(&of.exits),
            boot_ns.saturating_sub(start_ns),
            now.saturating_sub(start_ns),
        );
        let written = match &mut self.0 {
            Some(file) => file.write_all(text.as_bytes()),
            None => std::io::stdout().write_all(text.as_bytes()),
        };
        if let Err(error) = written {
            tell::warn(format_args!("cannot write the counters: {error}"));
        }
        // Closing it takes system calls that nothing else needs.
        std::mem::forget(self);
    }
}

/// Members of a JSON object.
fn causes(exits: &Exits) -> String {
    let member = |cause: Cause| format!("\"{}\":{}", cause.name(), exits.of(cause));
    Cause::ALL.map(member).join(",")
}
