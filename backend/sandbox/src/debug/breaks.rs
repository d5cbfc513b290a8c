//! Breakpoints of a guest in a process: INT3 in its memory, and the debug registers.
//!
//! Software breakpoints are in memory only while the guest runs: whoever looks while it is
//! stopped sees the guest's own code.

use super::code::Code;
use super::tracee::Tracee;
use hypervisor::debug::{BreakKind, Breakpoint, HARDWARE_BREAKPOINTS};
use hypervisor::vcpu::BackendError;
use rustix::io::Errno;
use std::collections::BTreeMap;

const INT3: u8 = 0xcc;
/// Software breakpoints at once.
const SOFTWARE: usize = 4096;
/// The status and the control register.
const DR6: usize = 6;
const DR7: usize = 7;

/// All breakpoints of a guest.
#[derive(Default)]
pub struct Breaks {
    /// By address; with the byte that the breakpoint has replaced, while it is in memory.
    software: BTreeMap<u64, Option<u8>>,
    hardware: [Option<Breakpoint>; HARDWARE_BREAKPOINTS],
}

impl Breaks {
    /// Sets a software breakpoint; `false` where there is no memory or no room.
    pub fn insert_software(&mut self, at: u64, code: &Code) -> bool {
        let room = self.software.len() < SOFTWARE || self.software.contains_key(&at);
        if !room || code.byte(at).is_err() {
            return false;
        }
        self.software.insert(at, None);
        true
    }

    /// Takes one away; `false` if it was not there.
    pub fn remove_software(&mut self, at: u64) -> bool {
        self.software.remove(&at).is_some()
    }

    /// Whether there is one.
    pub fn has_software(&self, at: u64) -> bool {
        self.software.contains_key(&at)
    }

    /// Whether one is in memory there.
    pub fn is_armed(&self, at: u64) -> bool {
        matches!(self.software.get(&at), Some(Some(_)))
    }

    /// Puts the software breakpoints into memory.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn arm(&mut self, code: &Code) -> Result<(), BackendError> {
        for (&at, original) in &mut self.software {
            let byte = code.byte(at)?;
            code.write(at, &[INT3])?;
            *original = Some(byte);
        }
        Ok(())
    }

    /// Takes them out again. What the guest itself has written there meanwhile stays.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn disarm(&mut self, code: &Code) -> Result<(), BackendError> {
        for (&at, original) in &mut self.software {
            if let Some(byte) = original.take()
                && code.byte(at)? == INT3
            {
                code.write(at, &[byte])?;
            }
        }
        Ok(())
    }

    /// Sets a hardware breakpoint; `false` if all registers are taken or the processor, or the
    /// host, has not got such a one.
    pub fn insert_hardware(&mut self, breakpoint: Breakpoint, tracee: &Tracee) -> bool {
        if self.hardware.contains(&Some(breakpoint)) {
            return true;
        }
        let Some(slot) = self.hardware.iter().position(Option::is_none) else { return false };
        if breakpoint.dr7_condition().is_none() {
            return false;
        }
        self.hardware[slot] = Some(breakpoint);
        if self.tell(tracee).is_ok() {
            return true;
        }
        self.hardware[slot] = None;
        // It was so before, so the system takes it.
        let _ = self.tell(tracee);
        false
    }

    /// Takes one away; `false` if it was not there.
    ///
    /// # Errors
    /// The system's.
    pub fn remove_hardware(&mut self, at: Breakpoint, tracee: &Tracee) -> Result<bool, Errno> {
        let Some(slot) = self.hardware.iter_mut().find(|slot| **slot == Some(at)) else {
            return Ok(false);
        };
        *slot = None;
        self.tell(tracee).map(|()| true)
    }

    /// Takes all away; the software ones must not be in memory.
    ///
    /// # Errors
    /// The system's.
    pub fn clear(&mut self, tracee: &Tracee) -> Result<(), Errno> {
        let registers_used = self.hardware.iter().any(Option::is_some);
        *self = Self::default();
        if registers_used { self.tell(tracee) } else { Ok(()) }
    }

    /// Sets the debug registers. The system checks DR7 against the addresses, so it comes last,
    /// and is cleared before they change.
    fn tell(&self, tracee: &Tracee) -> Result<(), Errno> {
        tracee.set_debug_register(DR7, 0)?;
        let mut control = 0;
        for (index, slot) in self.hardware.iter().enumerate() {
            if let Some((at, bits)) = slot.and_then(|at| Some((at, at.dr7_condition()?))) {
                tracee.set_debug_register(index, at.address.0)?;
                control |= 1 << (2 * index) | bits << (16 + 4 * index);
            }
        }
        tracee.set_debug_register(DR7, control)
    }

    /// The hardware breakpoint that has just been reached, if any.
    ///
    /// # Errors
    /// The system's.
    pub fn reached(&self, tracee: &Tracee) -> Result<Option<Breakpoint>, Errno> {
        if self.hardware.iter().all(Option::is_none) {
            return Ok(None);
        }
        let status = tracee.debug_register(DR6)?;
        tracee.set_debug_register(DR6, 0)?;
        let hit = |index: &usize| status >> index & 1 == 1;
        Ok((0..HARDWARE_BREAKPOINTS).filter(hit).find_map(|index| self.hardware[index]))
    }

    /// The software breakpoint at an address.
    pub fn software(at: u64) -> Breakpoint {
        Breakpoint { kind: BreakKind::Software, address: hypervisor::memory::Gva(at) }
    }
}
