//! A session: listens while the guest is stopped, and runs it as long as the debugger wants.

use super::frame::{Frame, Framer};
use super::target::{Debuggee, Wish};
use super::wire::{Gone, Line, Wire};
use super::{Done, Heard, Link};
use crate::debug::{BreakKind, Breakpoint, DebugVcpu, Stop};
use crate::memory::GuestMemory;
use crate::vcpu::{Answer, BackendError, Ending, ExitHandler, VmEntry, VmExit};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::RefCell;
use gdbstub::common::Signal;
use gdbstub::stub::state_machine::{GdbStubStateMachine, GdbStubStateMachineInner, state};
use gdbstub::stub::{DisconnectReason, GdbStub, GdbStubError, SingleThreadStopReason};
use gdbstub::target::ext::breakpoints::WatchKind;

/// The state of the protocol.
type Machine<'a, 'l, V, L> = GdbStubStateMachine<'static, Debuggee<'a, V>, Wire<'a, 'l, L>>;
type Running<'a, 'l, V, L> =
    GdbStubStateMachineInner<'static, state::Running, Debuggee<'a, V>, Wire<'a, 'l, L>>;
type Idle<'a, 'l, V, L> = GdbStubStateMachineInner<
    'static,
    state::Idle<Debuggee<'a, V>>,
    Debuggee<'a, V>,
    Wire<'a, 'l, L>,
>;
type Reason = SingleThreadStopReason<u64>;

/// Why a session does not go on.
enum Out {
    Done(Box<Done>),
    Failed(BackendError),
}

fn done(done: Done) -> Out {
    Out::Done(Box::new(done))
}

/// Serves a debugger, who finds the guest stopped where it is. `handler` answers the guest's
/// exits, as in [`crate::vcpu::run`].
///
/// # Errors
/// If the backend itself failed.
pub fn serve<V: DebugVcpu>(
    vcpu: &mut V,
    handler: &dyn ExitHandler,
    memory: &GuestMemory,
    link: &mut impl Link,
) -> Result<Done, BackendError> {
    let line = RefCell::new(Line::new(link));
    let target = Debuggee { vcpu, memory, wish: Wish::Continue, ended: None, reads: Vec::new() };
    let mut session = Session { target, handler, line: &line, framer: Framer::new() };
    let done = match session.run() {
        Out::Done(done) => *done,
        Out::Failed(error) => return Err(error),
    };
    let target = session.target;
    // Whoever leaves a guest that has ended has seen its end.
    if let Some(ending) = target.ended {
        // What is left of it may be dumped: without breakpoints.
        if ending != Ending::Interrupted {
            target.vcpu.detach()?;
        }
        return Ok(Done::Ended(ending));
    }
    if matches!(done, Done::Detached | Done::Lost { running: true }) {
        target.vcpu.detach()?;
    }
    Ok(done)
}

struct Session<'a, 'l, V, L> {
    target: Debuggee<'a, V>,
    handler: &'a dyn ExitHandler,
    line: &'a RefCell<Line<'l, L>>,
    framer: Framer,
}

impl<'a, 'l, V: DebugVcpu, L: Link> Session<'a, 'l, V, L> {
    fn run(&mut self) -> Out {
        let mut machine = match self.begin() {
            Ok(machine) => machine,
            Err(out) => return out,
        };
        loop {
            let next = match machine {
                GdbStubStateMachine::Idle(idle) => self.listen(idle),
                GdbStubStateMachine::Running(running) => self.go_on(running),
                GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                    let reason: Option<Reason> = Some(Reason::Signal(Signal::SIGINT));
                    let next = interrupt.interrupt_handled(&mut self.target, reason);
                    next.map_err(|e| out(e, false))
                }
                GdbStubStateMachine::Disconnected(end) => {
                    return done(match end.get_reason() {
                        DisconnectReason::Kill => {
                            self.line.borrow_mut().agree_to_kill();
                            Done::Killed
                        }
                        // An end is in `ended`, too.
                        _ => Done::Detached,
                    });
                }
            };
            machine = match next {
                Ok(machine) => machine,
                Err(out) => return out,
            };
        }
    }

    fn begin(&mut self) -> Result<Machine<'a, 'l, V, L>, Out> {
        let stub = GdbStub::new(Wire(self.line));
        stub.run_state_machine(&mut self.target).map_err(|e| out(e, false))
    }

    /// The guest is stopped: takes the next byte.
    fn listen(&mut self, mut idle: Idle<'a, 'l, V, L>) -> Result<Machine<'a, 'l, V, L>, Out> {
        let heard = self.line.borrow_mut().link.next(true);
        let byte = match heard {
            Heard::Byte(byte) => byte,
            Heard::Nothing => return Ok(idle.into()),
            Heard::Interrupted => {
                return match self.host_wants() {
                    None => Ok(idle.into()),
                    Some(ending) => Err(done(Done::Ended(ending))),
                };
            }
            Heard::Gone => return Err(done(Done::Lost { running: false })),
        };
        let packet: &[u8] = match self.framer.push(byte) {
            None => return Ok(idle.into()),
            Some(Frame::Broken) => {
                self.line.borrow_mut().refuse_frame();
                return Ok(idle.into());
            }
            // It is stopped.
            Some(Frame::Interrupt) => return Ok(idle.into()),
            Some(Frame::Stray) => return Err(done(Done::Lost { running: false })),
            Some(Frame::Packet(packet)) => packet,
        };
        for (index, &byte) in packet.iter().enumerate() {
            match idle.incoming_data(&mut self.target, byte) {
                Ok(GdbStubStateMachine::Idle(same)) => idle = same,
                Ok(next) => {
                    debug_assert_eq!(
                        index + 1,
                        packet.len(),
                        "only a whole packet means something"
                    );
                    return Ok(next);
                }
                Err(error) if error.is_connection_error() || error.is_target_error() => {
                    return Err(out(error, false));
                }
                Err(_) => {
                    self.line.borrow_mut().refuse_command();
                    return self.begin();
                }
            }
        }
        Ok(idle.into())
    }

    /// The host has interrupted: maybe it ends the guest.
    fn host_wants(&self) -> Option<Ending> {
        match self.handler.handle(VmExit::Interrupted, self.target.memory) {
            Answer::Resume(_) => None,
            Answer::End(ending) => Some(ending),
        }
    }

    /// Lets the guest run until there is something to say, or to listen to.
    fn go_on(&mut self, running: Running<'a, 'l, V, L>) -> Result<Machine<'a, 'l, V, L>, Out> {
        if let Some(ending) = self.target.ended.clone() {
            return self.report(running, last_word(&ending));
        }
        // What came before the vCPU was interrupted the last time is not announced again.
        loop {
            let heard = self.line.borrow_mut().link.next(false);
            match heard {
                Heard::Byte(byte) => match self.framer.push(byte) {
                    Some(Frame::Interrupt) => {
                        return self.report(running, Reason::Signal(Signal::SIGINT));
                    }
                    Some(Frame::Stray) => return Err(done(Done::Lost { running: true })),
                    _ => {}
                },
                Heard::Nothing => break,
                Heard::Interrupted => {
                    if let Some(ending) = self.host_wants() {
                        return self.over(running, ending);
                    }
                }
                Heard::Gone => return Err(done(Done::Lost { running: true })),
            }
        }
        match self.run_guest().map_err(Out::Failed)? {
            Event::Listen => Ok(running.into()),
            Event::Stop(reason) => self.report(running, reason),
            Event::End(ending) => self.over(running, ending),
        }
    }

    fn run_guest(&mut self) -> Result<Event, BackendError> {
        let mut entry = VmEntry::Continue;
        loop {
            let step = self.target.wish != Wish::Continue;
            let exit = match self.target.vcpu.resume(entry, step)? {
                Stop::Step if self.is_in_range() => return Ok(Event::Listen),
                Stop::Step => return Ok(Event::Stop(Reason::DoneStep)),
                Stop::Breakpoint(breakpoint) => return Ok(Event::Stop(self.reached(breakpoint))),
                Stop::Exit(exit) => exit,
            };
            let answer = match exit {
                VmExit::Ended(ending) => Answer::End(*ending),
                VmExit::Interrupted => match self.host_wants() {
                    None => return Ok(Event::Listen),
                    Some(ending) => Answer::End(ending),
                },
                exit => self.handler.handle(exit, self.target.memory),
            };
            match answer {
                Answer::Resume(next) => entry = next,
                Answer::End(ending) => return Ok(Event::End(ending)),
            }
        }
    }

    fn is_in_range(&self) -> bool {
        let Wish::StepIn(start, end) = self.target.wish else { return false };
        self.target.rip().is_some_and(|rip| (start..end).contains(&rip))
    }

    fn reached(&self, at: Breakpoint) -> Reason {
        let addr = at.address.0;
        let kind = match at.kind {
            BreakKind::Software => return Reason::SwBreak(()),
            BreakKind::Hardware => return Reason::HwBreak(()),
            BreakKind::Write { .. } => WatchKind::Write,
            BreakKind::Access { .. } if self.target.reads.contains(&addr) => WatchKind::Read,
            BreakKind::Access { .. } => WatchKind::ReadWrite,
        };
        Reason::Watch { tid: (), kind, addr }
    }

    /// The guest has ended. One that ended by its fault can still be looked at: that is a signal
    /// to the debugger, and its death comes when the debugger lets it go on.
    fn over(
        &mut self,
        running: Running<'a, 'l, V, L>,
        ending: Ending,
    ) -> Result<Machine<'a, 'l, V, L>, Out> {
        let mut reason = last_word(&ending);
        if let Ending::Fault(text) = &ending {
            self.line.borrow_mut().tell(text);
            if self.target.rip().is_some() {
                reason = Reason::Signal(Signal::SIGSEGV);
            }
        }
        self.target.ended = Some(ending);
        self.report(running, reason)
    }

    fn report(
        &mut self,
        running: Running<'a, 'l, V, L>,
        reason: Reason,
    ) -> Result<Machine<'a, 'l, V, L>, Out> {
        // A connection that ends here leaves a guest that is stopped.
        running.report_stop(&mut self.target, reason).map_err(|e| out(e, false))
    }
}

/// What running the guest has led to.
enum Event {
    Listen,
    Stop(Reason),
    End(Ending),
}

fn last_word(ending: &Ending) -> Reason {
    match ending {
        Ending::Exit { status, .. } => Reason::Exited(status.to_le_bytes()[0]),
        Ending::Fault(_) => Reason::Terminated(Signal::SIGSEGV),
        Ending::Interrupted => Reason::Terminated(Signal::SIGTERM),
    }
}

fn out(error: GdbStubError<BackendError, Gone>, running: bool) -> Out {
    match error.into_target_error() {
        Some(error) => Out::Failed(error),
        None => done(Done::Lost { running }),
    }
}
