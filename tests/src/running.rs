//! A tender that runs, and how it ended.
//!
//! Every wait has a limit; what does not end is killed, and only that.

use crate::processes;
use crate::stream::Stream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take: far more than it needs, also on an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status; `None` if it was killed by a signal.
    pub status: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Process id that it had.
    pub pid: u32,
}

/// A tender that may be running; killed when dropped.
pub struct Running {
    child: Child,
    stdout: Stream,
    stderr: Stream,
    shown: String,
    status: Option<ExitStatus>,
}

impl Running {
    /// Watches a child whose outputs are pipes or its own; `shown` is its command line, for messages.
    pub fn new(mut child: Child, shown: String) -> Self {
        let stdout = child.stdout.take().map_or_else(Stream::none, Stream::read);
        let stderr = child.stderr.take().map_or_else(Stream::none, Stream::read);
        Self { child, stdout, stderr, shown, status: None }
    }

    /// Its process id, which is also its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it is no more.
    pub fn signal(&mut self, signal: i32) {
        assert!(self.ended().is_none(), "{}: has ended\n{}", self.shown, self.output());
        processes::signal(self.pid(), signal).expect("a child of ours can be signalled");
    }

    /// Waits until standard output has `text`.
    ///
    /// # Panics
    /// If it ends before, or does not come.
    pub fn expect(&mut self, text: &str) -> String {
        self.await_text(text, |running| &running.stdout)
    }

    /// Waits until standard error has `text`.
    ///
    /// # Panics
    /// As [`Self::expect`].
    pub fn expect_error(&mut self, text: &str) -> String {
        self.await_text(text, |running| &running.stderr)
    }

    fn await_text(&mut self, text: &str, stream: impl Fn(&Self) -> &Stream) -> String {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let seen = stream(self).wait_for(text);
            if seen.contains(text) {
                return seen;
            }
            if self.ended().is_some() && !stream(self).wait_for(text).contains(text) {
                break;
            }
        }
        panic!("{}: no `{text}' in the output\n{}", self.shown, self.output());
    }

    /// Waits until standard output has `text` so many times, but no longer than `limit`.
    ///
    /// # Panics
    /// As [`Self::expect`].
    pub fn expect_times(&mut self, text: &str, times: usize, limit: Duration) -> String {
        let start = Instant::now();
        while start.elapsed() < limit && self.ended().is_none() {
            let seen = self.stdout.now();
            if seen.matches(text).count() >= times {
                return seen;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{}: not {times} times `{text}' in the output\n{}", self.shown, self.output());
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child of ours can be waited for");
        }
        self.status
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it takes longer than [`PATIENCE`].
    pub fn finish(self) -> Outcome {
        self.finish_within(PATIENCE)
    }

    /// Waits for the end, but no longer than `limit`.
    ///
    /// # Panics
    /// If it takes longer.
    pub fn finish_within(mut self, limit: Duration) -> Outcome {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            if start.elapsed() > limit {
                panic!("{}: still runs after {limit:?}\n{}", self.shown, self.output());
            }
            thread::sleep(Duration::from_millis(2));
        };
        Outcome {
            status: status.code(),
            signal: status.signal(),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
            pid: self.child.id(),
        }
    }

    fn output(&self) -> String {
        format!("stdout:\n{}\nstderr:\n{}", self.stdout.now(), self.stderr.now())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Outcome {
    /// Both outputs.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Checks that the unikernel ended well.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn assert_success(&self) {
        assert!(self.status == Some(0) && self.stdout.contains("SUCCESS"), "{self:#?}");
    }

    /// Checks for an exit status and a fragment of either output.
    ///
    /// # Panics
    /// If one is different.
    #[track_caller]
    pub fn assert_ends(&self, status: i32, text: &str) {
        let fits = self.status == Some(status) && self.output().contains(text);
        assert!(fits, "wanted status {status} and `{text}', found {self:#?}");
    }

    /// The lines of standard error that are the tender's own, without its name.
    pub fn complaints(&self) -> Vec<&str> {
        let prefixes = ["redox-hvt: ", "redox-vm: ", "solo5-hvt: "];
        let own = |line: &'_ str| prefixes.iter().find_map(|p| line.strip_prefix(p).map(str::len));
        self.stderr.lines().filter_map(|line| own(line).map(|n| &line[line.len() - n..])).collect()
    }
}
