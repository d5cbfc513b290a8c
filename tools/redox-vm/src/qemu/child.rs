//! QEMU's process: it ends with us, and a signal that ends us ends it first, so that it leaves its
//! disks and the terminal in order.

#![allow(unsafe_code)]

use host_linux::begin::begin;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::mem::zeroed;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// Signals that end the machine.
const ENDS: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
const STACK: usize = 64 << 10;

/// How it ended.
pub enum Ended {
    /// By the guest, the keys, or a failure.
    Itself(ExitStatus),
    /// Because of this signal to us.
    BySignal(i32),
}

/// Runs the command to its end.
///
/// # Errors
/// In words for a person.
pub fn run(command: &mut Command) -> Result<Ended, String> {
    mask(libc::SIG_BLOCK).map_err(|e| format!("cannot block signals: {e}"))?;
    // SAFETY: the child makes two system calls, which write no memory.
    unsafe {
        command.pre_exec(|| {
            mask(libc::SIG_UNBLOCK)?;
            // It shall not go on without us, whatever ends us.
            done(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM))
        });
    }
    let mut child = command.spawn().map_err(|e| format!("cannot start QEMU: {e}"))?;
    // Not by its number, which could be another's by then.
    let process = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .map_err(|e| format!("cannot watch QEMU: {e}"))?;
    let signal = Arc::new(AtomicI32::new(0));
    let seen = Arc::clone(&signal);
    begin("signals", STACK, move || pass_on(&process, &seen))
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    let ended = child.wait().map_err(|e| format!("cannot wait for QEMU: {e}"))?;
    Ok(match signal.load(SeqCst) {
        0 => Ended::Itself(ended),
        signal => Ended::BySignal(signal),
    })
}

/// Waits for signals for ever; each ends the process.
fn pass_on(process: &OwnedFd, seen: &AtomicI32) {
    let set = set();
    loop {
        // SAFETY: the set is initialised, and nothing is asked about the signal.
        let signal = unsafe { libc::sigwaitinfo(&raw const set, null_mut()) };
        if signal > 0 {
            seen.store(signal, SeqCst);
            // One that has ended already has.
            let _ = pidfd_send_signal(process, Signal::TERM);
        }
    }
}

fn mask(how: i32) -> io::Result<()> {
    let set = set();
    // SAFETY: the set is initialised.
    done(unsafe { libc::sigprocmask(how, &raw const set, null_mut()) })
}

fn set() -> libc::sigset_t {
    // SAFETY: all zeros is a set, which is then made an empty one.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in ENDS {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

fn done(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
