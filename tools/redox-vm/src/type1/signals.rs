//! Signals: a thread of their own waits for them, so that they interrupt nothing.
//!
//! INT, TERM, HUP and QUIT end the machine; TSTP stops this process with the terminal as it was,
//! and makes it raw again when the process goes on.

#![allow(unsafe_code)]

use super::End;
use host_linux::begin::begin;
use host_linux::confine::Rule;
use host_linux::terminal::RawTerminal;
use std::sync::{Arc, Mutex, PoisonError};

const ENDS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
const STACK: usize = 64 << 10;

/// The terminal that vCPUs and signals share.
pub type Terminal = Mutex<Option<RawTerminal>>;

fn set() -> libc::sigset_t {
    // SAFETY: all zeros is a set, which is then made an empty one.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in ENDS.into_iter().chain([libc::SIGTSTP]) {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Blocks them in this thread and those that it will start. A console that is gone is an error,
/// not a signal.
pub fn block() {
    let set = set();
    // SAFETY: the set is initialised; ignoring a signal involves no memory.
    unsafe {
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Starts the thread.
pub fn start(end: &Arc<End>, terminal: &Arc<Terminal>) -> std::io::Result<()> {
    let (end, terminal) = (Arc::clone(end), Arc::clone(terminal));
    let work = move || {
        let set = set();
        loop {
            // SAFETY: the set is initialised, and nothing is asked about the signal.
            match unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) } {
                libc::SIGTSTP => stop(&terminal),
                signal @ 1.. => end.by_signal(signal),
                _ => {}
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
