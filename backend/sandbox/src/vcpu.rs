//! The supervisor's side of a guest's process: starts it, waits for its end, takes its last word.

#![allow(unsafe_code)]

use crate::Child;
use crate::child::{self, Prepared};
use crate::debug::{Debugger, Subject};
use crate::report::Report;
use hypervisor::vcpu::{BackendError, BackendVcpu, Ending, VmEntry, VmExit, line};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal,
    waitid,
};
use std::sync::Arc;

/// The one vCPU of a sandboxed guest. Dropping it ends the guest.
pub struct SandboxVcpu {
    report: Arc<Report>,
    process: OwnedFd,
    pid: Pid,
    started: bool,
    ended: bool,
    /// While it is debugged.
    pub(crate) debugger: Option<Debugger>,
}

impl SandboxVcpu {
    /// Forks the guest's process, which prepares itself and waits for the first [`run`].
    ///
    /// [`run`]: BackendVcpu::run
    pub(crate) fn spawn(child: Child<'_>) -> Result<Self, BackendError> {
        let report = Arc::new(Report::new()?);
        let file = child.config.keep_code.then(|| Subject::file(child.file)).transpose()?;
        let (end, entry) = (child.memory.end().0, child.state.rip);
        let prepared = Prepared::new(child, Arc::clone(&report))?;
        let subject = file.map(|file| Subject { file, end, entry, cpu: prepared.cpu_address() });
        // SAFETY: the child does nothing but `become_guest`, which neither allocates nor takes a
        // lock, so the state of other threads at this moment does not matter to it.
        let pid = match unsafe { libc::fork() } {
            0 => child::become_guest(prepared),
            pid => Pid::from_raw(pid).filter(|_| pid > 0),
        };
        // The child has its own copy; here only the guest's process may answer.
        let pid = pid.ok_or_else(|| {
            BackendError::new(format!(
                "cannot start the guest's process: {}",
                std::io::Error::last_os_error()
            ))
        })?;
        let process = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|e| BackendError::new(format!("pidfd_open (Linux 5.3 and later): {e}")))?;
        let mut vcpu = Self { report, process, pid, started: false, ended: false, debugger: None };
        if let Some(subject) = subject {
            vcpu.debugger = Some(Debugger::seize(subject, pid, &vcpu.process)?);
        }
        Ok(vcpu)
    }

    /// Whether it has the starting signal.
    pub(crate) fn has_started(&self) -> bool {
        self.started
    }

    /// Gives the starting signal. `false` if that was done before.
    pub(crate) fn let_go(&mut self) -> bool {
        let first = !std::mem::replace(&mut self.started, true);
        if first {
            self.report.start();
        }
        first
    }

    /// How the guest ends, which is now.
    pub(crate) fn wait_for_end(&mut self) -> Result<Ending, BackendError> {
        let options = WaitIdOptions::EXITED;
        let failed = |e| BackendError::new(format!("waiting for the guest's process: {e}"));
        let status = waitid(WaitId::PidFd(self.process.as_fd()), options).map_err(failed)?;
        self.ended = true;
        let status = status.ok_or_else(|| failed(Errno::CHILD))?;
        self.ending(&status)
    }

    /// The guest's process, for a debugger.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The descriptor on which the supervisor waits and through which it kills.
    pub fn process(&self) -> &OwnedFd {
        &self.process
    }

    fn wait(&mut self) -> Result<Option<Ending>, BackendError> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let failed = |e| BackendError::new(format!("waiting for the guest's process: {e}"));
        let Some(status) = waitid(WaitId::PidFd(self.process.as_fd()), options).map_err(failed)?
        else {
            return Ok(None);
        };
        self.ended = true;
        self.ending(&status).map(Some)
    }

    fn ending(&self, status: &WaitIdStatus) -> Result<Ending, BackendError> {
        if let Some(ending) = self.report.get()? {
            return Ok(ending);
        }
        let text = match status.terminating_signal() {
            Some(libc::SIGSYS) => line(format_args!(
                "the guest was killed: it made a system call that its sandbox forbids"
            )),
            Some(libc::SIGKILL) => line(format_args!("the guest was killed by SIGKILL")),
            Some(signal) => line(format_args!(
                "the guest was killed: it broke the monitor in its process (signal {signal})"
            )),
            None => line(format_args!("the guest's process ended without a word")),
        };
        Ok(Ending::Fault(text))
    }
}

impl BackendVcpu for SandboxVcpu {
    /// Lets the guest start and waits. Exits are answered in the guest's process; what comes back
    /// is the end, or [`VmExit::Interrupted`] after a signal handler has run here. Signals that
    /// the caller has blocked are let in while it waits, and only then.
    fn run(&mut self, _entry: VmEntry) -> Result<VmExit, BackendError> {
        self.let_go();
        loop {
            let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
            match poll_with_signals(&mut fds) {
                Err(Errno::INTR) => return Ok(VmExit::Interrupted),
                Err(e) => return Err(BackendError::new(format!("waiting for the guest: {e}"))),
                Ok(()) => {}
            }
            if let Some(ending) = self.wait()? {
                return Ok(VmExit::Ended(Box::new(ending)));
            }
        }
    }
}

/// ppoll(2) with no signal blocked: one that is pending interrupts it at once.
fn poll_with_signals(fds: &mut [PollFd<'_>]) -> Result<(), Errno> {
    let none_blocked = 0u64;
    // SAFETY: PollFd is `struct pollfd`; the mask is the kernel's 8 bytes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ppoll,
            fds.as_mut_ptr(),
            fds.len(),
            core::ptr::null::<libc::timespec>(),
            &raw const none_blocked,
            size_of::<u64>(),
        )
    };
    if result >= 0 {
        return Ok(());
    }
    // SAFETY: errno is this thread's.
    Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
}

impl Drop for SandboxVcpu {
    fn drop(&mut self) {
        if !self.ended {
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
            let _ = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
        }
    }
}
