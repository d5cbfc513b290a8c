//! The image's command line: words, `NAME` or `NAME=VALUE`.

use crate::cpus::GuestCpus;
use alloc::string::String;
use alloc::vec::Vec;

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What a person wants to know.
    Info,
    /// What helps to find a mistake.
    Debug,
}

impl Level {
    /// A level by its name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            _ => return None,
        })
    }
}

/// What the image is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Run guests.
    Guests,
    /// Test itself on this machine.
    SelfTest,
    /// Fail, to see what is printed.
    Crash,
    /// Count what a guest's exits cost.
    Bench,
}

/// Which VMs to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// One of each description.
    All,
    /// One of each of these.
    These(Vec<String>),
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What to do.
    pub task: Task,
    /// Messages up to this level are shown.
    pub level: Level,
    /// A failure resets the machine instead of halting it.
    pub reset_after_failure: bool,
    /// Which VMs are made of the boot module's descriptions and started.
    pub start: Start,
    /// The machine is switched off when the last of them has ended.
    pub exit: bool,
    /// This one has the terminal.
    pub attach: Option<String>,
    /// There is a console to type at.
    pub console: bool,
    /// CPUs that are used at most.
    pub cpus: u32,
    /// Those of them that guests may use, or what is wrong with that word.
    pub guest_cpus: Result<GuestCpus, String>,
    /// Words that mean nothing.
    pub unknown: Vec<String>,
}

impl Options {
    /// Reads a command line.
    pub fn parse(line: &str) -> Self {
        let mut options = Self {
            task: Task::Guests,
            level: Level::Info,
            reset_after_failure: false,
            start: Start::All,
            exit: false,
            attach: None,
            console: true,
            cpus: u32::MAX,
            guest_cpus: Ok(GuestCpus::default()),
            unknown: Vec::new(),
        };
        for word in line.split_ascii_whitespace() {
            if options.take(word).is_none() {
                options.unknown.push(word.into());
            }
        }
        options
    }

    fn take(&mut self, word: &str) -> Option<()> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match (name, value) {
            ("selftest", "") => self.task = Task::SelfTest,
            ("crash", "") => self.task = Task::Crash,
            ("bench", "") => self.task = Task::Bench,
            ("log", level) => self.level = Level::named(level)?,
            ("panic", "halt") => self.reset_after_failure = false,
            ("panic", "reset") => self.reset_after_failure = true,
            ("start", "all") => self.start = Start::All,
            ("start", "none") => self.start = Start::These(Vec::new()),
            ("start", names) if !names.is_empty() => {
                self.start = Start::These(names.split(',').map(Into::into).collect());
            }
            ("attach", name) if !name.is_empty() => self.attach = Some(name.into()),
            ("exit", "") => self.exit = true,
            ("console", "on") => self.console = true,
            ("console", "off") => self.console = false,
            ("cpus", count) => self.cpus = count.parse().ok().filter(|count| *count > 0)?,
            ("guest-cpus", text) => self.guest_cpus = GuestCpus::parse(text),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_others_kept() {
        let options = Options::parse("  selftest log=debug cpus=3 panic=reset ");
        assert_eq!((options.task, options.level, options.cpus), (Task::SelfTest, Level::Debug, 3));
        assert!(options.reset_after_failure && options.unknown.is_empty());
        let options = Options::parse("start=a,b attach=a exit console=off");
        assert_eq!(options.start, Start::These(["a", "b"].map(Into::into).into()));
        assert_eq!(options.attach.as_deref(), Some("a"));
        assert!(options.exit && !options.console && options.unknown.is_empty());
        let some = Options::parse("guest-cpus=1-");
        assert_eq!(some.guest_cpus, GuestCpus::parse("1-"));
        assert!(Options::parse("guest-cpus=all").guest_cpus.is_err());
        let options = Options::parse("log=loud cpus=0 quiet panic=never");
        assert_eq!(options.unknown, ["log=loud", "cpus=0", "quiet", "panic=never"]);
        assert_eq!(Options { unknown: Vec::new(), ..options }, Options::parse(""));
    }
}
