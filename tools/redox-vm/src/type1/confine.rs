//! What a machine's process gives up before its guest's first instruction.

use super::signals::{self, Terminal};
use crate::stats::StatsFile;
use host_linux::confine::Rule;
use host_linux::terminal::RawTerminal;
use host_linux::type1::LinuxHost;
use redox_hvt::confine::{self, Keep};
use std::sync::PoisonError;

/// Core dumps, capabilities and the file system, in this thread and those that it will start.
pub fn walls(verbose: bool) {
    confine::walls(None, verbose);
}

/// Every system call but those that the machine needs, in all threads.
///
/// # Errors
/// In words for a person, where the machine must not run so.
pub fn filter(
    host: &LinuxHost,
    terminal: &Terminal,
    stats: Option<&StatsFile>,
    verbose: bool,
) -> Result<(), String> {
    let mut rules = backend();
    rules.extend(host.rules());
    rules.extend(signals::rules());
    let terminal = terminal.lock().unwrap_or_else(PoisonError::into_inner);
    rules.extend(terminal.as_ref().map(RawTerminal::rules).unwrap_or_default());
    rules.extend(stats.and_then(StatsFile::rule));
    let keep = Keep { rules, core_directory: None, stats: None };
    confine::filter(keep, verbose)
}

fn backend() -> Vec<Rule> {
    let deadline = "a vCPU's deadline";
    let calls = [
        (libc::SYS_timer_settime, deadline),
        (libc::SYS_timer_create, deadline),
        (libc::SYS_timer_delete, deadline),
        (libc::SYS_gettid, "the thread of a vCPU"),
        (libc::SYS_tgkill, "kick a vCPU out of its guest"),
        (libc::SYS_sched_yield, "locks"),
    ];
    let ioctls = backend_kvm::pc::IOCTLS.iter();
    let ioctls = ioctls.map(|(number, why)| Rule::with(libc::SYS_ioctl, 1, *number, why));
    ioctls.chain(calls.map(|(call, why)| Rule::any(call, why))).collect()
}
