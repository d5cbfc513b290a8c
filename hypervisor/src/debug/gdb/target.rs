//! A vCPU as gdbstub sees it: registers, memory, breakpoints, and the wish how it goes on.
//!
//! What the debugger asks for and cannot have is an error to the debugger, never the session's.

use super::registers;
use crate::debug::{BreakKind, Breakpoint, DebugVcpu, HARDWARE_BREAKPOINTS, Registers};
use crate::memory::{GuestMemory, Gva};
use crate::vcpu::{BackendError, Ending};
use alloc::vec::Vec;
use gdbstub::common::Signal;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::singlethread::*;
use gdbstub::target::ext::breakpoints::*;
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;

/// How the debugger wants the guest to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Until something happens.
    Continue,
    /// For one instruction.
    Step,
    /// By single instructions, as long as they begin between these addresses.
    StepIn(u64, u64),
}

/// The vCPU, and what the session knows about it.
pub struct Debuggee<'a, V> {
    pub vcpu: &'a mut V,
    pub memory: &'a GuestMemory,
    pub wish: Wish,
    /// The guest has ended, and can still be looked at.
    pub ended: Option<Ending>,
    /// Watched addresses of which the debugger wants to hear as reads. The processor watches
    /// reads and writes alike there.
    pub reads: Vec<u64>,
}

const PAGE: u64 = 4096;

fn refused<T>(_: T) -> TargetError<BackendError> {
    TargetError::NonFatal
}

impl<V: DebugVcpu> Debuggee<'_, V> {
    /// The instruction pointer, where the system tells.
    pub fn rip(&self) -> Option<u64> {
        let Registers::X86(registers) = self.vcpu.registers().ok()?;
        Some(registers.rip)
    }

    /// Does something to memory page by page; says how far that went.
    fn by_pages(
        &self,
        at: u64,
        len: usize,
        mut f: impl FnMut(&Self, u64, usize, usize) -> bool,
    ) -> usize {
        let mut done = 0;
        while done < len {
            let Some(here) = at.checked_add(done as u64) else { break };
            let in_page = usize::try_from(PAGE - here % PAGE).unwrap_or(1).min(len - done);
            if !f(self, here, done, in_page) {
                break;
            }
            done += in_page;
        }
        done
    }

    fn watches(&mut self, at: u64, len: u64, kind: WatchKind) -> Option<Vec<Breakpoint>> {
        let mut watches = Vec::new();
        let (mut at, mut left) = (at, len);
        while left > 0 {
            // The largest piece that is aligned to its own length.
            let piece = [8, 4, 2, 1].into_iter().find(|piece| at % piece == 0 && *piece <= left)?;
            let len = u8::try_from(piece).ok()?;
            let kind = match kind {
                WatchKind::Write => BreakKind::Write { len },
                WatchKind::Read | WatchKind::ReadWrite => BreakKind::Access { len },
            };
            watches.push(Breakpoint { kind, address: Gva(at) });
            if watches.len() > HARDWARE_BREAKPOINTS {
                return None;
            }
            (at, left) = (at.checked_add(piece)?, left - piece);
        }
        Some(watches)
    }
}

impl<V: DebugVcpu> Target for Debuggee<'_, V> {
    type Arch = X86_64_SSE;
    type Error = BackendError;

    fn base_ops(&mut self) -> BaseOps<'_, X86_64_SSE, BackendError> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn use_rle(&self) -> bool {
        // It saves nothing that matters, and people read along.
        false
    }
}

impl<V: DebugVcpu> SingleThreadBase for Debuggee<'_, V> {
    fn read_registers(&mut self, to: &mut X86_64CoreRegs) -> TargetResult<(), Self> {
        let Registers::X86(from) = self.vcpu.registers().map_err(refused)?;
        registers::shown(&from, to);
        Ok(())
    }

    fn write_registers(&mut self, from: &X86_64CoreRegs) -> TargetResult<(), Self> {
        let Registers::X86(mut to) = self.vcpu.registers().map_err(refused)?;
        registers::set(&mut to, from);
        self.vcpu.set_registers(&Registers::X86(to)).map_err(refused)
    }

    fn read_addrs(&mut self, at: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        let len = data.len();
        let done = self.by_pages(at, len, |this, here, done, count| {
            let Ok(Some(gpa)) = this.vcpu.translate(Gva(here)) else { return false };
            let to = data.get_mut(done..done + count);
            to.is_some_and(|to| this.vcpu.peek(this.memory, gpa, to).is_ok())
        });
        if done == 0 && len > 0 { Err(TargetError::NonFatal) } else { Ok(done) }
    }

    fn write_addrs(&mut self, at: u64, data: &[u8]) -> TargetResult<(), Self> {
        // All of it or nothing.
        let found = self.by_pages(at, data.len(), |this, here, _, _| {
            let gpa = this.vcpu.translate(Gva(here)).ok().flatten();
            gpa.and_then(|gpa| this.memory.perms_at(gpa)).is_some()
        });
        if found < data.len() {
            return Err(TargetError::NonFatal);
        }
        let mut rest = data;
        let mut here = at;
        while !rest.is_empty() {
            let count = usize::try_from(PAGE - here % PAGE).unwrap_or(1).min(rest.len());
            let (now, later) = rest.split_at(count);
            let gpa = self.vcpu.translate(Gva(here)).map_err(refused)?;
            self.vcpu.poke(gpa.ok_or(TargetError::NonFatal)?, now).map_err(refused)?;
            (rest, here) = (later, here.wrapping_add(count as u64));
        }
        Ok(())
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

/// A signal that the debugger wants the guest to get is not delivered: a unikernel has none.
impl<V: DebugVcpu> SingleThreadResume for Debuggee<'_, V> {
    fn resume(&mut self, _: Option<Signal>) -> Result<(), BackendError> {
        self.wish = Wish::Continue;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<SingleThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }
}

impl<V: DebugVcpu> SingleThreadSingleStep for Debuggee<'_, V> {
    fn step(&mut self, _: Option<Signal>) -> Result<(), BackendError> {
        self.wish = Wish::Step;
        Ok(())
    }
}

impl<V: DebugVcpu> SingleThreadRangeStepping for Debuggee<'_, V> {
    fn resume_range_step(&mut self, start: u64, end: u64) -> Result<(), BackendError> {
        self.wish = Wish::StepIn(start, end);
        Ok(())
    }
}

impl<V: DebugVcpu> Breakpoints for Debuggee<'_, V> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

fn at(kind: BreakKind, address: u64) -> Breakpoint {
    Breakpoint { kind, address: Gva(address) }
}

impl<V: DebugVcpu> SwBreakpoint for Debuggee<'_, V> {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.vcpu.insert(at(BreakKind::Software, address)).map_err(refused)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.vcpu.remove(at(BreakKind::Software, address)).map_err(refused)
    }
}

impl<V: DebugVcpu> HwBreakpoint for Debuggee<'_, V> {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.vcpu.insert(at(BreakKind::Hardware, address)).map_err(refused)
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        self.vcpu.remove(at(BreakKind::Hardware, address)).map_err(refused)
    }
}

impl<V: DebugVcpu> HwWatchpoint for Debuggee<'_, V> {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let Some(watches) = self.watches(address, len, kind) else { return Ok(false) };
        for (index, &watch) in watches.iter().enumerate() {
            if !self.vcpu.insert(watch).map_err(refused)? {
                for &placed in &watches[..index] {
                    self.vcpu.remove(placed).map_err(refused)?;
                }
                return Ok(false);
            }
        }
        if kind == WatchKind::Read {
            self.reads.extend(watches.iter().map(|watch| watch.address.0));
        }
        Ok(!watches.is_empty())
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let Some(watches) = self.watches(address, len, kind) else { return Ok(false) };
        let mut all = !watches.is_empty();
        for watch in watches {
            self.reads.retain(|at| *at != watch.address.0);
            all &= self.vcpu.remove(watch).map_err(refused)?;
        }
        Ok(all)
    }
}
