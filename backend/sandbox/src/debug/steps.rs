//! From one stop that a debugger wants to see to the next.
//!
//! The guest's traps are signals, and they are the monitor's: they go through. A step into the
//! monitor goes on to the return from its handler, rt_sigreturn(2), behind which the guest's next
//! instruction waits. That a process is in the monitor shows in its signal mask: the handlers run
//! with all signals blocked, the guest with none.

use super::Debugger;
use super::breaks::Breaks;
use super::registers;
use super::tracee::{Event, Go};
use hypervisor::debug::Breakpoint;
use libc::{SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP, c_int};
use rustix::io::Errno;

/// `si_code` of an INT3 and of a single step (Linux `arch/x86/kernel/traps.c`).
const SI_KERNEL: c_int = 0x80;
const TRAP_TRACE: c_int = 2;
const TRAP_HWBKPT: c_int = 4;

/// How an advance has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Step,
    Breakpoint(Breakpoint),
    Interrupted,
    Gone,
}

/// What a stop means for the advance that it interrupts.
enum Next {
    Stop(Outcome),
    /// It goes on, with this signal if it is not 0.
    On(c_int),
    Listen,
}

impl Debugger {
    /// Lets the stopped process go on, to the next stop that a debugger wants to see.
    pub(super) fn advance(&mut self, step: bool) -> Result<Outcome, Errno> {
        self.on(step, 0)
    }

    /// As [`Debugger::advance`], from an event that has been taken already.
    pub(super) fn after(&mut self, event: Event, step: bool) -> Result<Outcome, Errno> {
        match self.judge(event, step)? {
            Next::Stop(outcome) => Ok(outcome),
            Next::On(signal) => self.on(step, signal),
            Next::Listen => self.on(step, 0),
        }
    }

    fn on(&mut self, step: bool, mut signal: c_int) -> Result<Outcome, Errno> {
        let mut listen = false;
        loop {
            let how = match (listen, self.inside) {
                (true, _) => Go::Listen,
                (_, true) if step || self.reached.is_some() => Go::Syscall,
                (_, false) if step => Go::Step,
                _ => Go::On,
            };
            let event = match self.tracee.go(how, signal) {
                Ok(()) => self.wait()?,
                // Killed while it was stopped.
                Err(Errno::SRCH) => Event::Gone,
                Err(e) => return Err(e),
            };
            (signal, listen) = match self.judge(event, step)? {
                Next::Stop(outcome) => return Ok(outcome),
                Next::On(signal) => (signal, false),
                Next::Listen => (0, true),
            };
        }
    }

    /// The next stop. A signal to this process stops the guest too.
    fn wait(&mut self) -> Result<Event, Errno> {
        loop {
            match self.tracee.wait()? {
                Event::Nudged if self.interrupting => {}
                Event::Nudged => {
                    self.interrupting = true;
                    match self.tracee.interrupt() {
                        Ok(()) | Err(Errno::SRCH) => {}
                        Err(e) => return Err(e),
                    }
                }
                event => return Ok(event),
            }
        }
    }

    fn judge(&mut self, event: Event, step: bool) -> Result<Next, Errno> {
        let next = match self.look(event, step) {
            // Killed in the middle of it; the wait for its end will say so.
            Err(Errno::SRCH) => Next::Stop(Outcome::Gone),
            other => other?,
        };
        if matches!(next, Next::Stop(_)) {
            // Whoever asked for an interrupt gets control now, whatever the reason is; one that
            // is still on its way means nothing any more.
            self.interrupting = false;
        }
        Ok(next)
    }

    fn look(&mut self, event: Event, step: bool) -> Result<Next, Errno> {
        if event == Event::Gone {
            return Ok(Next::Stop(Outcome::Gone));
        }
        if event == Event::Group {
            return Ok(Next::Listen);
        }
        let was_inside = self.inside;
        self.inside = self.tracee.blocks(SIGSEGV)?;
        Ok(match event {
            Event::Interrupted if self.interrupting => Next::Stop(Outcome::Interrupted),
            Event::Signal(SIGTRAP) => match self.trap(step)? {
                // The monitor, on the guest's behalf: it is told when it is done.
                Some(Outcome::Breakpoint(breakpoint)) if self.inside => {
                    self.reached.get_or_insert(breakpoint);
                    Next::On(0)
                }
                Some(outcome) => Next::Stop(outcome),
                None => self.enter_monitor(SIGTRAP)?,
            },
            Event::Signal(signal @ (SIGSEGV | SIGILL | SIGFPE | SIGBUS | SIGSYS)) => {
                self.enter_monitor(signal)?
            }
            Event::Signal(signal) => Next::On(signal),
            // Behind rt_sigreturn, or interrupted on the way.
            _ if was_inside && !self.inside => match self.reached.take() {
                Some(breakpoint) => Next::Stop(Outcome::Breakpoint(breakpoint)),
                None if step => Next::Stop(Outcome::Step),
                None => Next::On(0),
            },
            _ => Next::On(0),
        })
    }

    /// A trap of the guest becomes the monitor's; one of the monitor's own ends the process.
    fn enter_monitor(&mut self, signal: c_int) -> Result<Next, Errno> {
        if !self.inside {
            self.trapped = Some(registers::read(&self.tracee, self.cpu)?);
            self.inside = true;
        }
        Ok(Next::On(signal))
    }

    /// What a SIGTRAP means to the debugger; `None` if it is the guest's own.
    fn trap(&mut self, step: bool) -> Result<Option<Outcome>, Errno> {
        let code = self.tracee.signal_code()?;
        if matches!(code, TRAP_TRACE | TRAP_HWBKPT)
            && let Some(breakpoint) = self.breaks.reached(&self.tracee)?
        {
            return Ok(Some(Outcome::Breakpoint(breakpoint)));
        }
        if code == TRAP_TRACE && step {
            return Ok(Some(Outcome::Step));
        }
        let mut regs = self.tracee.registers()?;
        let at = regs.rip.wrapping_sub(1);
        if code != SI_KERNEL || !self.breaks.is_armed(at) {
            return Ok(None);
        }
        regs.rip = at;
        self.tracee.set_registers(&regs)?;
        Ok(Some(Outcome::Breakpoint(Breaks::software(at))))
    }
}
