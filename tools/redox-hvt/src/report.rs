//! `--stats`: the guest's counters as one JSON object.
//!
//! The file is opened before the tender gives up its privileges, and replaces one of that name
//! ([`host_program::output`]). Every write replaces its contents, so that a reader finds one whole
//! object; standard output gets a line each time.

use crate::tell;
use host_linux::room;
use host_program::output::{OutputError, OutputFile, words};
use hypervisor::modes::hvt::solo5_abi::Hypercall;
use hypervisor::modes::hvt::stats::Stats;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::ftruncate;
use rustix::io::{Errno, pwrite, write};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where counters go.
pub struct StatsFile {
    /// `None` is standard output.
    file: Option<OwnedFd>,
}

/// What is reported beside the counters themselves.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Monotonic time at which the tender started, in nanoseconds.
    pub start_ns: u64,
    /// Monotonic time at which the guest was let go, in nanoseconds; 0 before.
    pub boot_ns: u64,
    /// Now.
    pub now_ns: u64,
}

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
            return Ok(Self { file: None });
        }
        let opened = OutputFile::create(Path::new(path), inputs).and_then(OutputFile::finish);
        match opened {
            Ok(file) => Ok(Self { file: Some(file) }),
            Err(error @ OutputError::NotAFile(_)) => {
                Err(format!("--stats: {error}: use --stats=- for standard output"))
            }
            Err(error) => Err(format!("--stats: {error}")),
        }
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_ref().map_or_else(|| rustix::stdio::stdout(), AsFd::as_fd)
    }

    /// Writes the counters.
    ///
    /// # Errors
    /// In words for a person.
    pub fn write(&self, stats: &Stats, backend: &str, times: &Times) -> Result<(), String> {
        self.put(&json(stats, backend, times)).map_err(words)
    }

    fn put(&self, text: &str) -> Result<(), Errno> {
        let file = self.fd();
        if self.file.is_none() {
            if !room::wait(file, tell::in_a_hurry()) {
                return Err(Errno::AGAIN);
            }
            return write(file, text.as_bytes()).map(drop);
        }
        ftruncate(file, 0)?;
        let mut at = 0;
        while at < text.len() {
            at += pwrite(file, &text.as_bytes()[at..], at as u64)?;
        }
        Ok(())
    }
}

/// One line of JSON. All names are ours, so nothing needs escaping.
fn json(stats: &Stats, backend: &str, times: &Times) -> String {
    let load = |counter: &AtomicU64| counter.load(Relaxed);
    let first_exit = load(&stats.first_exit_ns);
    let since = |ns: u64| if ns == 0 { 0 } else { ns.saturating_sub(times.start_ns) };
    let mut hypercalls = String::new();
    for call in Hypercall::ALL {
        let c = stats.call(call);
        let comma = if hypercalls.is_empty() { "" } else { "," };
        let _ = write!(
            hypercalls,
            "{comma}\"{}\":{{\"calls\":{},\"bytes\":{},\"ns\":{}}}",
            call.name(),
            load(&c.calls),
            load(&c.bytes),
            load(&c.nanoseconds)
        );
    }
    format!(
        "{{\"backend\":\"{backend}\",\"boot_ns\":{},\"first_exit_ns\":{},\"run_ns\":{},\
         \"exits\":{{\"io\":{},\"other\":{}}},\"hypercalls\":{{{hypercalls}}},\
         \"net_ring\":{{\"doorbells\":{},\"writes\":{},\"reads\":{},\"bytes\":{}}}}}\n",
        since(times.boot_ns),
        since(first_exit),
        times.now_ns.saturating_sub(times.start_ns),
        load(&stats.io_exits),
        load(&stats.other_exits),
        load(&stats.doorbells),
        load(&stats.ring_writes),
        load(&stats.ring_reads),
        load(&stats.ring_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_out_as_json() {
        let stats = Stats::default();
        stats.call(Hypercall::Puts).bytes.store(7, Relaxed);
        let times = Times { start_ns: 10, boot_ns: 30, now_ns: 60 };
        let text = json(&stats, "sandbox", &times);
        assert!(text.starts_with("{\"backend\":\"sandbox\",\"boot_ns\":20,\"first_exit_ns\":0,"));
        assert!(text.contains("\"puts\":{\"calls\":0,\"bytes\":7,\"ns\":0}"), "{text}");
        assert!(text.ends_with("}}\n"));
        let depth = |c| text.matches(c).count();
        assert_eq!(depth('{'), depth('}'));
    }
}
