//! How a process gives up what it does not need any more.
//!
//! [`filter`] turns [`Rule`]s into a system call filter; [`privileges`] drops capabilities, core
//! dumps and file system access. Each step is irrevocable, so everything that must be opened is
//! opened before. A container runtime's own filter may refuse a step; it then confines already,
//! and the step says so ([`Outcome`]).

mod bpf;
pub mod filter;
pub mod privileges;

use arrayvec::ArrayVec;
use rustix::fd::RawFd;
use rustix::io::Errno;

/// One system call that stays allowed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub call: i64,
    /// Values that arguments must have: index and value. A value below 2^32 is compared with the
    /// lower half of the argument only.
    pub args: ArrayVec<(u8, u64), 4>,
    /// Where two arguments, an offset and a length, must stay.
    pub within: Option<Within>,
    /// The reason, for a person who reads the list.
    pub why: &'static str,
}

impl Rule {
    /// The call with any arguments.
    pub const fn any(call: i64, why: &'static str) -> Self {
        Self { call, args: ArrayVec::new_const(), within: None, why }
    }

    /// The call with this descriptor as its first argument.
    pub fn on_fd(call: i64, fd: RawFd, why: &'static str) -> Self {
        Self::with(call, 0, u64::try_from(fd).unwrap_or(u64::MAX), why)
    }

    /// The call with this value as argument `index`.
    pub fn with(call: i64, index: u8, value: u64, why: &'static str) -> Self {
        Self::any(call, why).and(index, value)
    }

    /// And with this value as argument `index`. A fifth condition makes it a rule that cannot be
    /// compiled.
    #[must_use]
    pub fn and(mut self, index: u8, value: u64) -> Self {
        if self.args.try_push((index, value)).is_err() {
            self.call = -1;
        }
        self
    }

    /// And with an offset and a length whose sum is at most `within.end`.
    #[must_use]
    pub fn within(self, within: Within) -> Self {
        Self { within: Some(within), ..self }
    }
}

/// Where a transfer stays: `offset + length <= end`. A length of 4 GiB and more is beyond any end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    /// Index of the argument that is the offset.
    pub offset: u8,
    /// Index of the argument that is the length.
    pub length: u8,
    /// The end.
    pub end: u64,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force.
    Done,
    /// The kernel has not got it, or somebody outside forbids it.
    Refused(Errno),
}
