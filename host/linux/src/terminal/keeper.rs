//! A child process that puts the terminal back if we end without doing so ourselves: by a
//! SIGKILL, a system call filter, a panic.
//!
//! It waits at a pipe whose other end only we have. A byte there tells it that all is well.

#![allow(unsafe_code)]

use crate::confine::Rule;
use crate::confine::filter::compile;
use crate::confine::privileges::close_all_but;
use crate::sys::syscall;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, tcsetattr};

/// Our end of the pipe.
pub(super) struct Keeper(OwnedFd);

impl Keeper {
    /// Starts the child. In a process without other threads.
    pub(super) fn start(before: &Termios) -> Result<Self, Errno> {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: there is one thread, so the child is whole; it never returns from here.
        match unsafe { libc::fork() } {
            0 => {
                drop(ours);
                keep(&theirs, before)
            }
            pid if pid > 0 => Ok(Self(ours)),
            _ => Err(Errno::AGAIN),
        }
    }

    /// The system call that telling it takes.
    pub(super) fn rule(&self) -> Rule {
        Rule::on_fd(libc::SYS_write, self.0.as_raw_fd(), "the terminal is as it was")
    }

    /// The terminal is as it was: the child may go.
    pub(super) fn dismiss(self) {
        let _ = rustix::io::write(&self.0, &[0]);
    }
}

fn keep(pipe: &OwnedFd, before: &Termios) -> ! {
    for signal in [
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGTTOU,
        libc::SIGTSTP,
        libc::SIGUSR1,
    ] {
        // SAFETY: ignoring a signal involves no memory.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: this process uses these two only.
    unsafe { close_all_but(&mut [0, pipe.as_raw_fd()]) };
    let why = "wait for the parent's end, and put the terminal back";
    let rules = [libc::SYS_read, libc::SYS_ioctl, libc::SYS_exit_group, libc::SYS_rt_sigreturn];
    if let Ok(filter) = compile(&rules.map(|call| Rule::any(call, why))) {
        let _ = filter.apply();
    }
    let mut byte = [0];
    let told = loop {
        match rustix::io::read(pipe, &mut byte) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    if told != Ok(1) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, before);
    }
    // SAFETY: ends this process without running anything of the parent's.
    let _ = unsafe { syscall(libc::SYS_exit_group, [0; 6]) };
    std::process::abort()
}
