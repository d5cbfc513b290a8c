//! Signals: a thread of their own waits for them, so that they interrupt nothing.
//!
//! INT, TERM, HUP and QUIT end the machine; TSTP stops this process with the terminal as it was,
//! and makes it raw again when the process goes on.

#![allow(unsafe_code)]

use super::End;
use crate::signals::{Signals, ends};
use host_linux::begin::begin;
use host_linux::confine::Rule;
use host_linux::terminal::RawTerminal;
use host_program::inherited::is_ignored;
use std::sync::{Arc, Mutex, PoisonError};

const STACK: usize = 64 << 10;

/// The terminal that vCPUs and signals share.
pub type Terminal = Mutex<Option<RawTerminal>>;

fn all() -> Signals {
    let stop = Some(libc::SIGTSTP).filter(|signal| !is_ignored(*signal));
    Signals::of(&ends().into_iter().chain(stop).collect::<Vec<_>>())
}

/// Blocks them in this thread and those that it will start.
pub fn block() {
    // Of a set that there is, the system refuses nothing.
    let _ = all().block();
}

/// Starts the thread.
pub fn start(end: &Arc<End>, terminal: &Arc<Terminal>) -> std::io::Result<()> {
    let (end, terminal) = (Arc::clone(end), Arc::clone(terminal));
    let work = move || {
        let all = all();
        loop {
            match all.wait() {
                Some(libc::SIGTSTP) => stop(&terminal),
                Some(signal) => end.by_signal(signal),
                None => {}
            }
        }
    };
    begin("signals", STACK, work)
}

/// Stops this process. Held meanwhile, so that nobody ends with the terminal raw.
fn stop(terminal: &Terminal) {
    let terminal = terminal.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(terminal) = &*terminal {
        terminal.suspend();
    }
    // SAFETY: no memory is involved.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
    if let Some(terminal) = &*terminal {
        terminal.resume();
    }
}

/// The system calls that this takes.
pub fn rules() -> Vec<Rule> {
    vec![
        Rule::any(libc::SYS_rt_sigtimedwait, "wait for signals"),
        Rule::with(libc::SYS_kill, 1, 19, "stop like any program in a terminal"),
        Rule::any(libc::SYS_getpid, "stop this process, and kick its threads"),
    ]
}
