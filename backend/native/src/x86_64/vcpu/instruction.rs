//! Instructions that the backend finishes: fetched, decoded, carried out.

#![allow(unsafe_code)]

use super::bus::{GuestBus, Known, READS};
use super::code::{Code, WINDOW};
use super::{Pending, Vcpu};
use crate::Platform;
use crate::x86_64::decode::{Failure, Insn, MAX_LEN, Mode, Op, decode};
use crate::x86_64::emulate::{
    Element, Registers, Stop, execute, load, operand, plain_offset, port_element,
};
use crate::x86_64::memory::{Access, PAGE};
use crate::x86_64::space::{Miss, Paging, host, is_64_bit, linear, mode, read_u32};
use crate::x86_64::vendor::{Injection, Port, Vendor};
use crate::x86_64::vm::Kind;
use alloc::format;
use hypervisor::memory::{Gpa, Gva, Perms};
use hypervisor::vcpu::{BackendError, VmExit};

/// Instructions that are remembered with what they were decoded from: guests use devices by the
/// same few again and again.
const DECODED: usize = 4;

/// An instruction that is carried out, and may have asked a device.
#[derive(Debug, Default)]
pub(super) struct Instruction {
    decoded: [Decoded; DECODED],
    /// Which of them it is.
    place: usize,
    /// The guest-physical address at which it has left the guest, and what for.
    left: Option<(u64, Access)>,
    answers: [u64; READS],
    answered: usize,
    /// INS: the answer is its port's.
    port: Option<Port>,
}

#[derive(Debug, Default)]
struct Decoded {
    insn: Insn,
    mode: Mode,
    /// Of no bytes where nothing is remembered.
    code: Code,
}

impl Instruction {
    fn answers(&self) -> &[u64] {
        self.answers.get(..self.answered).unwrap_or_default()
    }

    /// Where the instruction at an address is, if it is remembered.
    #[inline]
    fn place(rip: u64) -> usize {
        usize::try_from(rip ^ rip >> 2).unwrap_or(0) % DECODED
    }

    #[inline]
    fn get(&self) -> &Decoded {
        &self.decoded[self.place % DECODED]
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

impl<P: Platform, V: Vendor<P>> Vcpu<P, V> {
    /// Carries out the instruction that has accessed `gpa`, which is not RAM or may not be written.
    pub(super) fn access(
        &mut self,
        gpa: u64,
        access: Access,
    ) -> Result<Option<VmExit>, BackendError> {
        let mode = mode::<P, V>(&self.v);
        if let Err(stop) = self.hold(mode) {
            return self.stopped(stop, Some(gpa));
        }
        (self.held.left, self.held.port) = (Some((gpa, access)), None);
        self.carry_out()
    }

    /// The usual access to a device, quickly: by a MOV in 64-bit code that is remembered. The
    /// processor has checked and translated it before it left the guest.
    #[inline(always)]
    pub(super) fn plain_access(&mut self, gpa: u64, access: Access) -> Option<VmExit> {
        if !is_64_bit(&self.v) {
            return None;
        }
        let code = self.usual_code()?;
        let rip = self.v.rip();
        let place = Instruction::place(rip);
        let Decoded { insn, .. } = self
            .held
            .decoded
            .get(place)
            .filter(|decoded| decoded.mode == Mode::Bits64 && decoded.code == code)?;
        let next = rip.wrapping_add(u64::from(insn.len));
        let size = insn.size;
        let registers = Registers { gprs: &mut self.core.gprs, rflags: 0, next };
        let offset = plain_offset(insn, &registers)?;
        if offset % PAGE != gpa % PAGE || gpa % PAGE + u64::from(size) > PAGE {
            // Other code, which another vCPU has put there since; or it reaches over two pages.
            return None;
        }
        let write = match (insn.op, access) {
            (Op::Load | Op::Extend { .. }, Access::Read) => {
                self.held.place = place;
                self.pending = Pending::Instruction;
                None
            }
            (Op::Store(source), Access::Write) => {
                let value = operand(insn, &registers, source);
                self.events.retire(&mut self.v, next);
                Some(value)
            }
            _ => return None,
        };
        Some(VmExit::Mmio { gpa: Gpa(gpa), size, write })
    }

    /// Carries out an element of INS or OUTS.
    pub(super) fn string_port(&mut self, port: Port) -> Result<Option<VmExit>, BackendError> {
        let mode = mode::<P, V>(&self.v);
        if let Err(stop) = self.hold(mode) {
            return self.stopped(stop, None);
        }
        if !matches!((self.held.get().insn.op, port.input), (Op::Ins, true) | (Op::Outs, false)) {
            // Another vCPU has changed the code since: the guest tries again.
            return Ok(None);
        }
        (self.held.left, self.held.port) = (None, Some(port));
        self.carry_out()
    }

    /// Decodes the instruction at RIP, to be carried out.
    fn hold(&mut self, mode: Mode) -> Result<(), Stop> {
        let code = self.code(mode)?;
        self.held.answered = 0;
        self.held.place = Instruction::place(self.v.rip());
        let found = &mut self.held.decoded[self.held.place % DECODED];
        if code != found.code || mode != found.mode {
            // What cannot be decoded is not remembered.
            *found = Decoded::default();
            *found = Decoded { insn: decode_all(mode, &code)?, mode, code };
        }
        Ok(())
    }

    /// Goes on with an instruction whose device or port has answered.
    #[inline]
    pub(super) fn answered(&mut self, value: u64) -> Result<Option<VmExit>, BackendError> {
        let Decoded { insn, mode, .. } = self.held.get();
        let next = next_rip(*mode, self.v.rip(), insn.len);
        let rflags = self.v.rflags();
        let mut registers = Registers { gprs: &mut self.core.gprs, rflags, next };
        if load(insn, &mut registers, value) {
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
        let Decoded { insn, mode, .. } = held.get();
        let mode = *mode;
        let next = next_rip(mode, rip, insn.len);
        let gprs = &mut self.core.gprs;
        let mut registers = Registers { gprs, rflags: self.v.rflags(), next };
        let mut bus = GuestBus {
            vm: &self.vm,
            v: &self.v,
            mode,
            known: held.left.and_then(|(gpa, access)| Known::of(insn.op, gpa, access)),
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
                    let gpa = held.left.map(|(gpa, _)| gpa);
                    return self.stopped(stop, gpa);
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

    fn unknown(&mut self, gpa: Option<u64>) -> BackendError {
        let code = self.fetch(mode::<P, V>(&self.v));
        let bytes = code.map(|code| format!("{:02x?}", bytes(&code.all(), code.len())));
        let bytes = bytes.unwrap_or_default();
        let what = gpa.map_or_else(|| "a port".into(), |gpa| format!("guest address {gpa:#x}"));
        BackendError::new(format!(
            "the guest accessed {what}, where there is no memory, by an instruction that cannot be \
             carried out for it: {bytes} at rip={:#x}",
            self.v.rip()
        ))
    }

    /// Where the guest goes on after an instruction that has left it, usually this one.
    pub(super) fn after(&mut self, usual: Usual) -> Result<u64, Stop> {
        if let Some(next) = self.after_usual(usual) {
            return Ok(next);
        }
        let mode = mode::<P, V>(&self.v);
        let code = self.fetch(mode)?;
        let is_usual = code.start() & usual.mask == usual.bytes;
        let there = code.len() >= usize::from(usual.len);
        let len = if is_usual && there { usual.len } else { decode_all(mode, &code)?.len };
        Ok(next_rip(mode, self.v.rip(), len))
    }

    /// The same, if it can be found out quickly.
    #[inline(always)]
    pub(super) fn after_usual(&self, usual: Usual) -> Option<u64> {
        if let Some(next) = self.v.next_rip() {
            return Some(next);
        }
        let at = self.known_code()?;
        // SAFETY: there are 16 bytes of RAM.
        let start = unsafe { read_u32(at) };
        let next = self.v.rip().wrapping_add(u64::from(usual.len));
        (start & usual.mask == usual.bytes).then_some(next)
    }

    /// The instruction at RIP.
    pub(super) fn decode(&mut self, mode: Mode) -> Result<Insn, Stop> {
        decode_all(mode, &self.code(mode)?)
    }

    /// The bytes at RIP.
    fn code(&mut self, mode: Mode) -> Result<Code, Stop> {
        self.usual_code().map_or_else(|| self.fetch(mode), Ok)
    }

    /// The same, if the processor tells them or the way there is known.
    #[inline(always)]
    fn usual_code(&self) -> Option<Code> {
        if let Some(bytes) = self.v.instruction()
            && bytes.len() >= MAX_LEN
        {
            let mut code = Code::default();
            code.append(bytes);
            return Some(code);
        }
        // SAFETY: there are 16 bytes of RAM.
        self.known_code().map(|at| unsafe { Code::read(at) })
    }

    /// Where the host has 16 bytes from RIP, in 64-bit code to which the way is known.
    #[inline(always)]
    fn known_code(&self) -> Option<*const u8> {
        let v = &self.v;
        if !is_64_bit(v) {
            return None;
        }
        self.pages.find(v.cr3(), v.rip(), v.cpl())
    }

    /// Up to 15 bytes of code from RIP, as far as they are mapped.
    #[cold]
    fn fetch(&mut self, mode: Mode) -> Result<Code, Stop> {
        let rip = self.v.rip();
        let at = linear(&self.v, mode, crate::x86_64::decode::Seg::Cs, rip, 1)?;
        if mode == Mode::Bits64
            && let Some(host) = self.find_way(at)
        {
            // SAFETY: there are 16 bytes of RAM.
            return Ok(unsafe { Code::read(host) });
        }
        let mut code = Code::default();
        self.fetch_part(at, &mut code)?;
        if code.room() > 0 {
            let beyond = (at & !(PAGE - 1)).wrapping_add(PAGE);
            // If it is not there the instruction may well end before.
            let _ = self.fetch_part(beyond, &mut code);
        }
        Ok(code)
    }

    /// Finds the way to a page of 64-bit code, and remembers it. `None` for anything unusual, and
    /// where 15 bytes from there are on two pages.
    fn find_way(&mut self, at: u64) -> Option<*const u8> {
        if at % PAGE > PAGE - WINDOW {
            return None;
        }
        let memory = self.vm.backing.memory();
        let way = Paging::of(&self.v).way_to_code(memory, at)?;
        let page = host(memory, way.gpa & !(PAGE - 1), PAGE)?;
        let found = page.wrapping_add(usize::try_from(at % PAGE).unwrap_or(0));
        // SAFETY: they are RAM of this VM, which lives as long as this vCPU.
        unsafe { self.pages.remember(self.v.cr3(), at, self.v.cpl(), &way, found) };
        Some(found)
    }

    fn fetch_part(&self, at: u64, code: &mut Code) -> Result<(), Stop> {
        let memory = self.vm.backing.memory();
        let gpa = Paging::of(&self.v).translate(memory, at, Access::Execute)?;
        let in_page = usize::try_from(PAGE - at % PAGE).unwrap_or(0);
        let wanted = code.room().min(in_page);
        let slice = memory.slice(Gpa(gpa), wanted as u64, Perms::READ);
        let slice = slice.map_err(|_| Stop::Denied(Gpa(gpa)))?;
        let mut part = [0; MAX_LEN];
        if let Some(part) = part.get_mut(..wanted) {
            slice.copy_to(part);
            code.append(part);
        }
        Ok(())
    }

    /// Gives the guest an exception.
    pub(super) fn raise(&mut self, exception: Injection) {
        self.events.raise(exception);
    }
}

fn decode_all(mode: Mode, code: &Code) -> Result<Insn, Stop> {
    match decode(mode, bytes(&code.all(), code.len())) {
        Ok(insn) => Ok(insn),
        // Of 15 prefixes; shorter code ends at a page that is not there.
        Err(Failure::Short) if code.len() >= MAX_LEN => Err(Miss::GP.into()),
        Err(Failure::Short | Failure::Unknown) => Err(Stop::Unsupported),
    }
}

fn bytes(all: &[u8; 16], len: usize) -> &[u8] {
    all.get(..len).unwrap_or_default()
}

/// RIP after `len` bytes.
fn next_rip(mode: Mode, rip: u64, len: u8) -> u64 {
    let next = rip.wrapping_add(u64::from(len));
    match mode {
        Mode::Bits64 => next,
        Mode::Bits32 | Mode::Bits16 => next & 0xffff_ffff,
    }
}
