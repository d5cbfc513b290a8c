//! Debugging a guest: its process is traced (ptrace(2)), and the monitor stays out of sight.
//!
//! A vCPU can be debugged if it was made with `keep_code`: its process is then traced from the
//! moment it is forked, because the supervisor may not any more once it has confined itself.
//! Order of calls: as [`hypervisor::debug`] says, all on the thread that made the vCPU.
//!
//! What the monitor does for the guest is one instruction to the debugger. While it does it, the
//! registers shown are those of the trapping instruction, and cannot be changed. A watchpoint that
//! it reaches, when it copies on the guest's behalf, stops the guest behind that instruction.
//!
//! Limit: after such a stop the guest's own #DB and #BP end it, because the kernel has then taken
//! the monitor's handler of SIGTRAP away.

mod breaks;
mod code;
mod registers;
mod steps;
mod tracee;

use crate::SandboxVcpu;
use breaks::Breaks;
use code::Code;
use host_linux::confine::Rule;
use hypervisor::debug::{BreakKind, Breakpoint, DebugVcpu, Registers, Stop, X86Registers};
use hypervisor::memory::{Gpa, Gva};
use hypervisor::vcpu::{BackendError, Ending, VmEntry, VmExit};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::Pid;
use steps::Outcome;
use tracee::{Event, Tracee};

/// A guest's debugger.
pub(crate) struct Debugger {
    tracee: Tracee,
    code: Code,
    breaks: Breaks,
    /// Where the guest's first instruction is.
    entry: u64,
    /// Where the guest's process has the monitor's [`crate::emulate::Cpu`].
    cpu: usize,
    /// The registers of the instruction that the monitor carries out, or did last.
    trapped: Option<X86Registers>,
    /// Whether the guest is in the monitor now.
    inside: bool,
    /// The breakpoint that the monitor has reached on the guest's behalf.
    reached: Option<Breakpoint>,
    /// Whether somebody waits for [`Event::Interrupted`].
    interrupting: bool,
    /// How the guest has ended.
    ending: Option<Ending>,
}

/// What a debugger has to know of a guest's process before that is forked off.
pub(crate) struct Subject {
    pub file: OwnedFd,
    pub end: u64,
    pub entry: u64,
    pub cpu: usize,
}

impl Subject {
    /// A descriptor of its own for the guest's memory.
    pub fn file(memory: &OwnedFd) -> Result<OwnedFd, BackendError> {
        tracee::duplicate(memory.as_fd())
            .map_err(|e| BackendError::new(format!("no descriptor for a debugger: {e}")))
    }
}

/// The system calls that debugging takes after [`DebugVcpu::attach`], beside those of waiting for
/// a guest.
pub fn debug_rules() -> Vec<Rule> {
    vec![
        Rule::any(libc::SYS_ptrace, "the guest's registers, stops and breakpoints"),
        Rule::any(libc::SYS_pread64, "the guest's code under a breakpoint"),
        Rule::any(libc::SYS_pwrite64, "breakpoints, and what the debugger writes"),
        Rule::any(libc::SYS_read, "what has happened to the guest's process"),
    ]
}

fn failed(e: Errno) -> BackendError {
    BackendError::new(format!("cannot debug the guest's process: ptrace: {e}"))
}

impl Debugger {
    /// Starts to trace a guest's process that waits for its starting signal. Its own walls do
    /// not keep this process out, but this process's would.
    pub(crate) fn seize(
        subject: Subject,
        pid: Pid,
        process: &OwnedFd,
    ) -> Result<Self, BackendError> {
        let process = tracee::duplicate(process.as_fd()).map_err(failed)?;
        let tracee = Tracee::seize(pid, process).map_err(|e| {
            BackendError::new(format!(
                "cannot debug the guest's process: ptrace: {e} (is kernel.yama.ptrace_scope above \
                 1, or ptrace forbidden in this container?)"
            ))
        })?;
        let Subject { file, end, entry, cpu } = subject;
        let code = Code::new(file, end);
        let breaks = Breaks::default();
        Ok(Self {
            tracee,
            code,
            breaks,
            entry,
            cpu,
            trapped: None,
            inside: false,
            reached: None,
            interrupting: false,
            ending: None,
        })
    }

    /// Makes the guest stop at its first instruction.
    fn guard_entry(&mut self) -> Result<(), BackendError> {
        if !self.breaks.insert_software(self.entry, &self.code) {
            return Err(BackendError::new("the guest's entry is outside of its memory"));
        }
        self.breaks.arm(&self.code)
    }

    /// Lets the process, which runs, get to the guest's first instruction. `false` if it ended.
    fn run_to_entry(&mut self) -> Result<bool, BackendError> {
        let outcome = self.next_stop();
        self.breaks.disarm(&self.code)?;
        self.breaks.remove_software(self.entry);
        Ok(outcome? != Outcome::Gone)
    }

    /// The first stop; a signal here interrupts nothing.
    fn next_stop(&mut self) -> Result<Outcome, BackendError> {
        let mut outcome = self.first_event().map_err(failed)?;
        while outcome == Outcome::Interrupted {
            outcome = self.advance(false).map_err(failed)?;
        }
        Ok(outcome)
    }

    fn first_event(&mut self) -> Result<Outcome, Errno> {
        loop {
            match self.tracee.wait()? {
                Event::Nudged => {}
                Event::Gone => return Ok(Outcome::Gone),
                event => return self.after(event, false),
            }
        }
    }

    fn resume(&mut self, step: bool) -> Result<Outcome, BackendError> {
        if !step && !self.inside {
            let registers = match self.tracee.registers() {
                Err(Errno::SRCH) => return Ok(Outcome::Gone),
                other => other.map_err(failed)?,
            };
            if self.breaks.has_software(registers.rip) {
                let outcome = self.advance(true).map_err(failed)?;
                if outcome != Outcome::Step {
                    return Ok(outcome);
                }
            }
        }
        // A step executes one instruction, at which nobody wants to stop again.
        if step {
            return self.advance(true).map_err(failed);
        }
        self.breaks.arm(&self.code)?;
        let outcome = self.advance(false).map_err(failed);
        self.breaks.disarm(&self.code)?;
        outcome
    }

    fn registers(&self) -> Result<X86Registers, BackendError> {
        match (self.inside, &self.trapped) {
            (true, Some(registers)) => Ok(*registers),
            _ => registers::read(&self.tracee, self.cpu).map_err(failed),
        }
    }

    /// Lets the process go, wherever it is.
    pub(crate) fn detach(mut self) -> Result<(), BackendError> {
        self.breaks.clear(&self.tracee).or_else(gone_is_fine).map_err(failed)?;
        self.tracee.detach(0).or_else(gone_is_fine).map_err(failed)
    }

    /// As [`Debugger::detach`], from a process that has never been stopped.
    pub(crate) fn detach_running(self) -> Result<(), BackendError> {
        let stop = || {
            self.tracee.interrupt()?;
            while !matches!(self.tracee.wait()?, Event::Interrupted | Event::Gone) {}
            Ok(())
        };
        stop().or_else(gone_is_fine).map_err(failed)?;
        self.tracee.detach(0).or_else(gone_is_fine).map_err(failed)
    }
}

fn gone_is_fine(e: Errno) -> Result<(), Errno> {
    if e == Errno::SRCH { Ok(()) } else { Err(e) }
}

impl SandboxVcpu {
    fn debugger(&self) -> Result<&Debugger, BackendError> {
        self.debugger.as_ref().ok_or_else(not_debugged)
    }

    fn debugger_mut(&mut self) -> Result<&mut Debugger, BackendError> {
        self.debugger.as_mut().ok_or_else(not_debugged)
    }
}

fn not_debugged() -> BackendError {
    BackendError::new("this guest cannot be debugged: make its backend with keep_code")
}

impl DebugVcpu for SandboxVcpu {
    fn attach(&mut self) -> Result<(), BackendError> {
        self.debugger()?;
        if self.has_started() {
            return Ok(());
        }
        // Before it is let go, or it is past it.
        self.debugger_mut()?.guard_entry()?;
        self.let_go();
        if !self.debugger_mut()?.run_to_entry()? {
            // What it says is why it could not be set up, or that it was killed.
            let ending = self.wait_for_end()?;
            return Err(BackendError::new(format!("the guest ended before it began: {ending:?}")));
        }
        Ok(())
    }

    fn detach(&mut self) -> Result<(), BackendError> {
        let was_running = self.let_go();
        match self.debugger.take() {
            Some(debugger) if was_running => debugger.detach_running(),
            Some(debugger) => debugger.detach(),
            None => Ok(()),
        }
    }

    fn resume(&mut self, _entry: VmEntry, step: bool) -> Result<Stop, BackendError> {
        self.attach()?;
        if let Some(ending) = &self.debugger()?.ending {
            return Ok(Stop::Exit(VmExit::Ended(Box::new(ending.clone()))));
        }
        Ok(match self.debugger_mut()?.resume(step)? {
            Outcome::Step => Stop::Step,
            Outcome::Breakpoint(breakpoint) => Stop::Breakpoint(breakpoint),
            Outcome::Interrupted => Stop::Exit(VmExit::Interrupted),
            Outcome::Gone => {
                let ending = self.wait_for_end()?;
                self.debugger_mut()?.ending = Some(ending.clone());
                Stop::Exit(VmExit::Ended(Box::new(ending)))
            }
        })
    }

    fn registers(&self) -> Result<Registers, BackendError> {
        self.debugger()?.registers().map(Registers::X86)
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), BackendError> {
        let Registers::X86(registers) = registers;
        let debugger = self.debugger_mut()?;
        if debugger.inside {
            return Err(BackendError::new(
                "the guest is in a hypercall: its registers can be set after one step",
            ));
        }
        registers::write(&debugger.tracee, registers).map_err(failed)
    }

    fn insert(&mut self, breakpoint: Breakpoint) -> Result<bool, BackendError> {
        let debugger = self.debugger_mut()?;
        Ok(match breakpoint.kind {
            BreakKind::Software => {
                debugger.breaks.insert_software(breakpoint.address.0, &debugger.code)
            }
            _ => debugger.breaks.insert_hardware(breakpoint, &debugger.tracee),
        })
    }

    fn remove(&mut self, breakpoint: Breakpoint) -> Result<bool, BackendError> {
        let debugger = self.debugger_mut()?;
        match breakpoint.kind {
            BreakKind::Software => Ok(debugger.breaks.remove_software(breakpoint.address.0)),
            _ => debugger.breaks.remove_hardware(breakpoint, &debugger.tracee).map_err(failed),
        }
    }

    fn translate(&self, address: Gva) -> Result<Option<Gpa>, BackendError> {
        // An HVT guest has its memory at its physical addresses.
        Ok(self.debugger()?.code.has(address.0).then_some(Gpa(address.0)))
    }

    fn poke(&mut self, at: Gpa, bytes: &[u8]) -> Result<(), BackendError> {
        self.debugger()?.code.write(at.0, bytes)
    }
}
