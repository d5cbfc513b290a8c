//! QEMU's process: it ends with us, and a signal that ends us ends it first, so that it leaves its
//! disks and the terminal in order.

#![allow(unsafe_code)]

use crate::signals::{Signals, ends};
use host_linux::begin::begin;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

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
    let signals = Signals::of(&ends());
    signals.block().map_err(|e| format!("cannot block signals: {e}"))?;
    let parent = i32::try_from(std::process::id()).unwrap_or(0);
    // SAFETY: the child makes three system calls, which write no memory.
    unsafe {
        command.pre_exec(move || {
            signals.unblock()?;
            // It shall not go on without us, whatever ends us; we may have ended already.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
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
    begin("signals", STACK, move || pass_on(&signals, &process, &seen))
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    let ended = child.wait().map_err(|e| format!("cannot wait for QEMU: {e}"))?;
    Ok(match signal.load(SeqCst) {
        0 => Ended::Itself(ended),
        signal => Ended::BySignal(signal),
    })
}

/// How long QEMU may take to leave its disks in order once it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for signals for ever; each ends the process, and kills it if it does not end.
fn pass_on(signals: &Signals, process: &OwnedFd, seen: &AtomicI32) {
    loop {
        if let Some(signal) = signals.wait() {
            seen.store(signal, SeqCst);
            // One that has ended already has.
            let _ = pidfd_send_signal(process, Signal::TERM);
            std::thread::sleep(PATIENCE);
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }
}
