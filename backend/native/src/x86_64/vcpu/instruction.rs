//! Instructions that the backend finishes: fetched, decoded, carried out.

#![allow(unsafe_code)]

use super::bus::{GuestBus, READS};
use super::{Pending, Vcpu};
use crate::Platform;
use crate::x86_64::decode::{Failure, Insn, MAX_LEN, Mode, Op, decode};
use crate::x86_64::emulate::{Element, Registers, Stop, execute, load, port_element};
use crate::x86_64::memory::{Access, PAGE};
use crate::x86_64::space::{Miss, Paging, host, linear, mode};
use crate::x86_64::vendor::{Injection, Port, Vendor};
use crate::x86_64::vm::Kind;
use alloc::format;
use hypervisor::memory::{Gpa, Gva, Perms};
use hypervisor::vcpu::{BackendError, VmExit};

/// An instruction that has asked a device.
#[derive(Debug, Default)]
pub(super) struct Instruction {
    insn: Insn,
    mode: Mode,
    known: Option<u64>,
    answers: [u64; READS],
    answered: usize,
    /// INS: the answer is its port's.
    port: Option<Port>,
    /// What `insn` was decoded from: guests use devices by the same instruction again and again.
    code: Code,
}

impl Instruction {
    fn answers(&self) -> &[u64] {
        self.answers.get(..self.answered).unwrap_or_default()
    }
}

/// How an instruction is usually encoded: in up to three bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usual {
    bytes: u32,
    mask: u32,
    len: u8,
}

impl Usual {
    /// One byte.
    pub const fn one(a: u8) -> Self {
        Self { bytes: a as u32, mask: 0xff, len: 1 }
    }

    /// Two.
    pub const fn two(a: u8, b: u8) -> Self {
        Self { bytes: u32::from_le_bytes([a, b, 0, 0]), mask: 0xffff, len: 2 }
    }

    /// Three.
    pub const fn three(a: u8, b: u8, c: u8) -> Self {
        Self { bytes: u32::from_le_bytes([a, b, c, 0]), mask: 0xff_ffff, len: 3 }
    }
}

/// 16 bytes, wherever they are.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Words(u64, u64);

/// Bytes of code.
#[derive(Debug, Clone, Copy, Default)]
struct Code {
    bytes: [u8; 16],
    len: usize,
}

impl Code {
    /// Whether the other one is the same.
    fn is(&self, other: &Self) -> bool {
        u128::from_ne_bytes(self.bytes) == u128::from_ne_bytes(other.bytes) && self.len == other.len
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<P: Platform, V: Vendor<P>> Vcpu<P, V> {
    /// Carries out the instruction that has accessed `gpa`, which is no RAM or not to be written.
    pub(super) fn access(&mut self, gpa: u64) -> Result<Option<VmExit>, BackendError> {
        let mode = mode::<P, V>(&self.v);
        if let Err(stop) = self.hold(mode) {
            return self.stopped(stop, Some(gpa));
        }
        (self.held.known, self.held.port) = (Some(gpa), None);
        self.carry_out()
    }

    /// Carries out an element of INS or OUTS.
    pub(super) fn string_port(&mut self, port: Port) -> Result<Option<VmExit>, BackendError> {
        let mode = mode::<P, V>(&self.v);
        if let Err(stop) = self.hold(mode) {
            return self.stopped(stop, None);
        }
        if !matches!((self.held.insn.op, port.input), (Op::Ins, true) | (Op::Outs, false)) {
            // Another vCPU has changed the code since: the guest tries again.
            return Ok(None);
        }
        (self.held.known, self.held.port) = (None, Some(port));
        self.carry_out()
    }

    /// Decodes the instruction at RIP, to be carried out.
    fn hold(&mut self, mode: Mode) -> Result<(), Stop> {
        self.held.answered = 0;
        let code = self.code(mode)?;
        if code.is(&self.held.code) && mode == self.held.mode {
            return Ok(());
        }
        // What cannot be decoded is not remembered.
        self.held.code = Code::default();
        self.held.insn = decode_all(mode, &code)?;
        self.held.mode = mode;
        self.held.code = code;
        Ok(())
    }

    /// Goes on with an instruction whose device or port has answered.
    pub(super) fn answered(&mut self, value: u64) -> Result<Option<VmExit>, BackendError> {
        let next = next_rip(self.held.mode, self.v.rip(), self.held.insn.len);
        let rflags = self.v.rflags();
        let mut registers = Registers { gprs: &mut self.core.gprs, rflags, next };
        if load(&self.held.insn, &mut registers, value) {
            self.events.retire(&mut self.v, next);
            return Ok(None);
        }
        // No instruction asks more often than there is room.
        if let Some(answer) = self.held.answers.get_mut(self.held.answered) {
            *answer = value;
            self.held.answered += 1;
        }
        self.carry_out()
    }

    fn carry_out(&mut self) -> Result<Option<VmExit>, BackendError> {
        let rip = self.v.rip();
        let held = &self.held;
        let (insn, mode) = (&held.insn, held.mode);
        let next = next_rip(mode, rip, insn.len);
        let gprs = &mut self.core.gprs;
        let mut registers = Registers { gprs, rflags: self.v.rflags(), next };
        let mut bus = GuestBus {
            vm: &self.vm,
            v: &self.v,
            mode,
            known: held.known,
            answers: held.answers(),
            asked: 0,
            written: None,
        };
        let mut exit = None;
        let over = if let Some(port) = held.port {
            let value = held.answers().first().copied();
            match port_element(insn, &mut registers, &mut bus, value) {
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
                    self.pending = Pending::Instruction;
                    let exit = VmExit::Io { port: port.port, size: insn.size, write: None };
                    return Ok(Some(exit));
                }
                Err(stop) => return self.stopped(stop, None),
            }
        } else {
            match execute(insn, &mut registers, &mut bus) {
                Ok(over) => over,
                Err(Stop::Ask { gpa, size }) => {
                    self.pending = Pending::Instruction;
                    return Ok(Some(VmExit::Mmio { gpa, size, write: None }));
                }
                Err(stop) => {
                    let known = held.known;
                    return self.stopped(stop, known);
                }
            }
        };
        if let Some((gpa, size, value)) = bus.written {
            exit = Some(VmExit::Mmio { gpa, size, write: Some(value) });
        }
        let rflags = registers.rflags;
        self.v.set_rflags(rflags);
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

    /// Where the guest goes on after an instruction that has left it, usually this one.
    pub(super) fn after(&self, usual: Usual) -> Result<u64, Stop> {
        if let Some(next) = self.v.next_rip() {
            return Ok(next);
        }
        let mode = mode::<P, V>(&self.v);
        let code = self.fetch(mode)?;
        let [a, b, c, ..] = code.bytes;
        let start = u32::from_le_bytes([a, b, c, 0]) & usual.mask;
        let there = code.len >= usize::from(usual.len);
        let len =
            if start == usual.bytes && there { usual.len } else { decode_all(mode, &code)?.len };
        Ok(next_rip(mode, self.v.rip(), len))
    }

    /// The instruction at RIP.
    pub(super) fn decode(&self, mode: Mode) -> Result<Insn, Stop> {
        decode_all(mode, &self.code(mode)?)
    }

    /// The bytes at RIP, from the processor if it tells them.
    fn code(&self, mode: Mode) -> Result<Code, Stop> {
        if let Some(bytes) = self.v.instruction()
            && bytes.len() >= MAX_LEN
        {
            let mut code = Code { len: MAX_LEN, ..Code::default() };
            code.bytes[..MAX_LEN].copy_from_slice(&bytes[..MAX_LEN]);
            return Ok(code);
        }
        self.fetch(mode)
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
        if wanted == MAX_LEN && in_page >= 16 {
            let from = host(memory, gpa, 16).ok_or(Stop::Denied(Gpa(gpa)))?;
            // SAFETY: 16 bytes of one page of RAM, as checked. The guest may change them
            // meanwhile: they are read once.
            let Words(low, high) = unsafe { from.cast::<Words>().read_volatile() };
            code.bytes[..8].copy_from_slice(&low.to_le_bytes());
            code.bytes[8..].copy_from_slice(&(high << 8 >> 8).to_le_bytes());
            code.len = MAX_LEN;
            return Ok(());
        }
        let slice = memory.slice(Gpa(gpa), wanted as u64, Perms::READ);
        let slice = slice.map_err(|_| Stop::Denied(Gpa(gpa)))?;
        if let Some(rest) = code.bytes.get_mut(code.len..code.len + wanted) {
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

fn decode_all(mode: Mode, code: &Code) -> Result<Insn, Stop> {
    match decode(mode, code.bytes()) {
        Ok(insn) => Ok(insn),
        // Of 15 prefixes; shorter code ends at a page that is not there.
        Err(Failure::Short) if code.len >= MAX_LEN => Err(Miss::GP.into()),
        Err(Failure::Short | Failure::Unknown) => Err(Stop::Unsupported),
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
