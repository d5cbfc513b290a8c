//! Instructions that the backend finishes: fetched, decoded, carried out.

#![allow(unsafe_code)]

use super::bus::{GuestBus, READS};
use super::{Pending, Vcpu};
use crate::Platform;
use crate::x86_64::decode::{Failure, Insn, MAX_LEN, Mode, Op, Plain, decode};
use crate::x86_64::emulate::{Element, Registers, Stop, execute, port_element};
use crate::x86_64::memory::{Access, PAGE};
use crate::x86_64::space::{Miss, Paging, linear, mode};
use crate::x86_64::vendor::{Injection, Port, Vendor};
use crate::x86_64::vm::Kind;
use alloc::boxed::Box;
use alloc::format;
use arrayvec::ArrayVec;
use hypervisor::memory::{Gpa, Gva, Perms};
use hypervisor::vcpu::{BackendError, VmExit};

/// An instruction that has asked a device.
#[derive(Debug)]
pub(super) struct Instruction {
    insn: Insn,
    mode: Mode,
    known: Option<u64>,
    answers: ArrayVec<u64, READS>,
    /// INS: the answer is its port's.
    port: Option<Port>,
}

/// 16 bytes, wherever they are.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Words(u64, u64);

/// Bytes of code.
#[derive(Debug, Clone, Copy)]
struct Code {
    bytes: [u8; 16],
    len: usize,
}

impl Code {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<P: Platform, V: Vendor<P>> Vcpu<P, V> {
    /// Carries out the instruction that has accessed `gpa`, which is no RAM or not to be written.
    pub(super) fn access(&mut self, gpa: u64) -> Result<Option<VmExit>, BackendError> {
        let mode = mode::<P, V>(&self.v);
        let insn = match self.decode(mode) {
            Ok(insn) => insn,
            Err(stop) => return self.stopped(stop, Some(gpa)),
        };
        let known = Some(gpa);
        let answers = ArrayVec::new();
        self.carry_out(Instruction { insn, mode, known, answers, port: None })
    }

    /// Carries out an element of INS or OUTS.
    pub(super) fn string_port(&mut self, port: Port) -> Result<Option<VmExit>, BackendError> {
        let mode = mode::<P, V>(&self.v);
        let insn = match self.decode(mode) {
            Ok(insn) => insn,
            Err(stop) => return self.stopped(stop, None),
        };
        if !matches!((insn.op, port.input), (Op::Ins, true) | (Op::Outs, false)) {
            // Another vCPU has changed the code since: the guest tries again.
            return Ok(None);
        }
        let answers = ArrayVec::new();
        self.carry_out(Instruction { insn, mode, known: None, answers, port: Some(port) })
    }

    /// Goes on with an instruction whose device or port has answered.
    pub(super) fn answered(
        &mut self,
        mut instruction: Instruction,
        value: u64,
    ) -> Result<Option<VmExit>, BackendError> {
        // No instruction asks more often.
        let _ = instruction.answers.try_push(value);
        self.carry_out(instruction)
    }

    fn carry_out(&mut self, instruction: Instruction) -> Result<Option<VmExit>, BackendError> {
        let rip = self.v.rip();
        let Instruction { insn, mode, .. } = instruction;
        let next = next_rip(mode, rip, insn.len);
        let mut registers = Registers { gprs: self.core.gprs, rflags: self.v.rflags(), next };
        let mut bus = GuestBus {
            vm: &self.vm,
            v: &self.v,
            mode,
            known: instruction.known,
            answers: &instruction.answers,
            asked: 0,
            written: None,
        };
        let mut exit = None;
        let over = if let Some(port) = instruction.port {
            let value = instruction.answers.first().copied();
            match port_element(&insn, &mut registers, &mut bus, value) {
                Ok(Element::Nothing) => true,
                Ok(Element::In(over)) => over,
                Ok(Element::Out(value, over)) => {
                    exit = Some(VmExit::Io {
                        port: port.port,
                        size: insn.size,
                        write: Some(u32::try_from(value & 0xffff_ffff).unwrap_or(0)),
                    });
                    over
                }
                Ok(Element::Ask) => {
                    self.pending = Pending::Instruction(Box::new(instruction));
                    let exit = VmExit::Io { port: port.port, size: insn.size, write: None };
                    return Ok(Some(exit));
                }
                Err(stop) => return self.stopped(stop, None),
            }
        } else {
            match execute(&insn, &mut registers, &mut bus) {
                Ok(over) => over,
                Err(Stop::Ask { gpa, size }) => {
                    self.pending = Pending::Instruction(Box::new(instruction));
                    return Ok(Some(VmExit::Mmio { gpa, size, write: None }));
                }
                Err(stop) => return self.stopped(stop, instruction.known),
            }
        };
        if let Some((gpa, size, value)) = bus.written {
            exit = Some(VmExit::Mmio { gpa, size, write: Some(value) });
        }
        self.core.gprs = registers.gprs;
        self.v.set_rflags(registers.rflags);
        if over {
            self.events.retire(&mut self.v, next);
        }
        Ok(exit)
    }

    /// An instruction cannot be carried out: the guest gets an exception, or has to end.
    fn stopped(&mut self, stop: Stop, gpa: Option<u64>) -> Result<Option<VmExit>, BackendError> {
        let rip = Gva(self.v.rip());
        match stop {
            Stop::Miss(Miss::Fault(exception, address)) => {
                if let Some(address) = address {
                    self.v.set_cr2(address);
                }
                self.events.raise(exception);
                Ok(None)
            }
            Stop::Miss(Miss::NoTable(address)) | Stop::Denied(address) => {
                Ok(Some(VmExit::MemoryFault { rip, address: Some(address) }))
            }
            Stop::Ask { .. } | Stop::Unsupported if self.vm.kind == Kind::Unikernel => {
                Ok(Some(VmExit::MemoryFault { rip, address: gpa.map(Gpa) }))
            }
            Stop::Ask { .. } | Stop::Unsupported => Err(self.unknown(gpa)),
        }
    }

    fn unknown(&self, gpa: Option<u64>) -> BackendError {
        let code = self.fetch(mode::<P, V>(&self.v));
        let bytes = code.map(|code| format!("{:02x?}", code.bytes())).unwrap_or_default();
        let what = gpa.map_or_else(|| "a port".into(), |gpa| format!("guest address {gpa:#x}"));
        BackendError::new(format!(
            "the guest accessed {what}, where there is no memory, by an instruction that cannot be \
             carried out for it: {bytes} at rip={:#x}",
            self.v.rip()
        ))
    }

    /// Where the guest goes on after an instruction of this kind, which has left it.
    pub(super) fn after(&self, length: u8) -> Result<u64, Stop> {
        if let Some(next) = self.v.next_rip() {
            return Ok(next);
        }
        let mode = mode::<P, V>(&self.v);
        let insn = self.decode(mode)?;
        // Another vCPU may have changed the code since: any instruction of that kind was so long.
        let len = if matches!(insn.op, Op::Plain(Plain::Nothing)) { length } else { insn.len };
        Ok(next_rip(mode, self.v.rip(), len))
    }

    /// The instruction at RIP.
    pub(super) fn decode(&self, mode: Mode) -> Result<Insn, Stop> {
        if let Some(bytes) = self.v.instruction()
            && let Ok(insn) = decode(mode, bytes)
        {
            return Ok(insn);
        }
        let code = self.fetch(mode)?;
        match decode(mode, code.bytes()) {
            Ok(insn) => Ok(insn),
            // Of 15 prefixes; shorter code ends at a page that is not there.
            Err(Failure::Short) if code.len >= MAX_LEN => Err(Miss::GP.into()),
            Err(Failure::Short | Failure::Unknown) => Err(Stop::Unsupported),
        }
    }

    /// Up to 15 bytes of code from RIP, as far as they are mapped.
    fn fetch(&self, mode: Mode) -> Result<Code, Stop> {
        let rip = self.v.rip();
        let at = linear(&self.v, mode, crate::x86_64::decode::Seg::Cs, rip, 1)?;
        let mut code = Code { bytes: [0; 16], len: 0 };
        self.fetch_part(at, &mut code)?;
        if code.len < MAX_LEN {
            let beyond = (at & !(PAGE - 1)).wrapping_add(PAGE);
            // If it is not there the instruction may well end before.
            let _ = self.fetch_part(beyond, &mut code);
        }
        Ok(code)
    }

    fn fetch_part(&self, at: u64, code: &mut Code) -> Result<(), Stop> {
        let memory = self.vm.backing.memory();
        let gpa = Paging::of(&self.v).translate(memory, at, Access::Execute)?;
        let in_page = PAGE - at % PAGE;
        let wanted = (MAX_LEN - code.len).min(usize::try_from(in_page).unwrap_or(0));
        let slice = memory.slice(Gpa(gpa), wanted as u64, Perms::READ);
        let slice = slice.map_err(|_| Stop::Denied(Gpa(gpa)))?;
        if wanted == MAX_LEN && in_page >= 16 {
            // SAFETY: 16 bytes of one page of RAM, as checked. The guest may change them
            // meanwhile: they are read once.
            let Words(low, high) = unsafe { slice.as_ptr().cast::<Words>().read_volatile() };
            code.bytes[..8].copy_from_slice(&low.to_le_bytes());
            code.bytes[8..].copy_from_slice(&high.to_le_bytes());
        } else if let Some(rest) = code.bytes.get_mut(code.len..code.len + wanted) {
            slice.copy_to(rest);
        }
        code.len += wanted;
        Ok(())
    }

    /// Gives the guest an exception.
    pub(super) fn raise(&mut self, exception: Injection) {
        self.events.raise(exception);
    }
}

/// RIP after `len` bytes.
fn next_rip(mode: Mode, rip: u64, len: u8) -> u64 {
    let next = rip.wrapping_add(u64::from(len));
    match mode {
        Mode::Bits64 => next,
        Mode::Bits32 | Mode::Bits16 => next & 0xffff_ffff,
    }
}
