//! One instruction.

use super::alu::{self, DF, ZF};
use super::{Bus, Spot, Stop};
use crate::x86_64::decode::{Address, Alu, Bit, Insn, Op, Place, Rep, Seg, Source};
use crate::x86_64::regs::{Gprs, truncate};

/// The registers that instructions work on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Registers<'a> {
    pub gprs: &'a mut Gprs,
    pub rflags: u64,
    /// Of the next instruction.
    pub next: u64,
}

/// Carries out an instruction, one element of it if it repeats. `true`: it is over, and the guest
/// goes on after it; `false`: the guest comes to it again.
///
/// # Errors
/// See [`Stop`]. Nothing has changed then.
pub(crate) fn execute(
    insn: &Insn,
    r: &mut Registers<'_>,
    bus: &mut impl Bus,
) -> Result<bool, Stop> {
    let size = insn.size;
    match insn.op {
        Op::Load | Op::Extend { .. } => {
            let value = get(insn, r, bus, false)?;
            load(insn, r, value);
        }
        Op::Store(source) => put(insn, r, bus, operand(insn, r, source))?,
        Op::ToMemory(Alu::Cmp, source) => {
            let value = get(insn, r, bus, false)?;
            let (_, flags) =
                alu::arithmetic(Alu::Cmp, size, value, operand(insn, r, source), r.rflags);
            r.rflags = flags;
        }
        Op::ToMemory(op, source) => {
            let other = operand(insn, r, source);
            return modify(insn, r, bus, |old, flags| alu::arithmetic(op, size, old, other, flags));
        }
        Op::FromMemory(op) => {
            let value = get(insn, r, bus, false)?;
            let (result, flags) =
                alu::arithmetic(op, size, register(insn, r, size), value, r.rflags);
            r.rflags = flags;
            if op != Alu::Cmp {
                set_register(insn, r, size, result);
            }
        }
        Op::Test(source) => {
            let value = get(insn, r, bus, false)?;
            let (_, flags) =
                alu::arithmetic(Alu::And, size, value, operand(insn, r, source), r.rflags);
            r.rflags = flags;
        }
        Op::Xchg => {
            let old = get(insn, r, bus, true)?;
            put(insn, r, bus, register(insn, r, size))?;
            set_register(insn, r, size, old);
        }
        Op::Xadd => {
            let other = register(insn, r, size);
            let old = get(insn, r, bus, true)?;
            let (sum, flags) = alu::arithmetic(Alu::Add, size, old, other, r.rflags);
            put(insn, r, bus, sum)?;
            set_register(insn, r, size, old);
            r.rflags = flags;
        }
        Op::CmpXchg => return compare_exchange(insn, r, bus),
        Op::Bit(op, source) => return bit(insn, r, bus, op, source),
        Op::Not => return modify(insn, r, bus, |old, flags| (!old, flags)),
        Op::Neg => {
            return modify(insn, r, bus, |old, flags| {
                alu::arithmetic(Alu::Sub, size, 0, old, flags)
            });
        }
        Op::Inc => return modify(insn, r, bus, |old, f| alu::step(size, old, false, f)),
        Op::Dec => return modify(insn, r, bus, |old, f| alu::step(size, old, true, f)),
        Op::Movs | Op::Cmps | Op::Stos | Op::Lods | Op::Scas => return string(insn, r, bus),
        // Ports are not memory; the others are known by their exits.
        Op::Ins | Op::Outs | Op::ToCr(_) | Op::FromCr(_) | Op::Plain(_) => {
            return Err(Stop::Unsupported);
        }
    }
    Ok(true)
}

/// Finishes an instruction that only loads a register, with what it has read. `false` if it is
/// another one.
#[inline(always)]
pub(crate) fn load(insn: &Insn, r: &mut Registers<'_>, value: u64) -> bool {
    let value = truncate(value, insn.size);
    match insn.op {
        Op::Load => set_register(insn, r, insn.size, value),
        Op::Extend { to, signed: true } => {
            r.gprs.set(insn.register, to, sign_extend(value, insn.size));
        }
        Op::Extend { to, signed: false } => r.gprs.set(insn.register, to, value),
        _ => return false,
    }
    true
}

/// A register operand; in byte instructions without REX, 4 to 7 are AH to BH.
fn register(insn: &Insn, r: &Registers<'_>, size: u8) -> u64 {
    match insn.register {
        n @ 4..=7 if size == 1 && !insn.rex => r.gprs.get(n - 4) >> 8 & 0xff,
        n => truncate(r.gprs.get(n), size),
    }
}

fn set_register(insn: &Insn, r: &mut Registers<'_>, size: u8, value: u64) {
    match insn.register {
        n @ 4..=7 if size == 1 && !insn.rex => {
            let old = r.gprs.get(n - 4);
            r.gprs.set(n - 4, 8, old & !0xff00 | (value & 0xff) << 8);
        }
        n => r.gprs.set(n, size, value),
    }
}

/// The operand that is not in memory.
#[inline]
pub(crate) fn operand(insn: &Insn, r: &Registers<'_>, source: Source) -> u64 {
    match source {
        Source::Register => register(insn, r, insn.size),
        Source::Immediate => truncate(insn.immediate, insn.size),
    }
}

/// Where an address leads, of the instruction's address size.
#[inline(always)]
fn offset(insn: &Insn, r: &Registers<'_>, address: &Address) -> u64 {
    let base = match address.base {
        Some(base) => r.gprs.get(base),
        None if address.rip_relative => r.next,
        None => 0,
    };
    let index = address.index.map_or(0, |(index, shift)| r.gprs.get(index) << shift);
    let sum = base.wrapping_add(index).wrapping_add(address.displacement.cast_unsigned());
    truncate(sum, insn.address_size)
}

/// Where an operand in memory is in 64-bit code, unless its segment has a base.
#[inline]
pub(crate) fn plain_offset(insn: &Insn, r: &Registers<'_>) -> Option<u64> {
    match &insn.place {
        Place::Memory(address) if !matches!(insn.segment, Seg::Fs | Seg::Gs) => {
            Some(offset(insn, r, address))
        }
        _ => None,
    }
}

fn spot(insn: &Insn, r: &Registers<'_>) -> Option<Spot> {
    match &insn.place {
        Place::Memory(address) => {
            Some(Spot { segment: insn.segment, offset: offset(insn, r, address) })
        }
        Place::Register(_) => None,
    }
}

/// Reads the place. Instructions on registers alone do not come here, but a guest may replace
/// one by another while it is looked at.
fn get(insn: &Insn, r: &Registers<'_>, bus: &mut impl Bus, write: bool) -> Result<u64, Stop> {
    bus.read(spot(insn, r).ok_or(Stop::Unsupported)?, insn.size, write)
}

fn put(insn: &Insn, r: &Registers<'_>, bus: &mut impl Bus, value: u64) -> Result<(), Stop> {
    let value = truncate(value, insn.size);
    bus.write(spot(insn, r).ok_or(Stop::Unsupported)?, insn.size, value)
}

fn modify(
    insn: &Insn,
    r: &mut Registers<'_>,
    bus: &mut impl Bus,
    new: impl Fn(u64, u64) -> (u64, u64),
) -> Result<bool, Stop> {
    let old = get(insn, r, bus, true)?;
    let (value, flags) = new(old, r.rflags);
    put(insn, r, bus, value)?;
    r.rflags = flags;
    Ok(true)
}

fn compare_exchange(insn: &Insn, r: &mut Registers<'_>, bus: &mut impl Bus) -> Result<bool, Stop> {
    let size = insn.size;
    let old = get(insn, r, bus, true)?;
    let (_, flags) = alu::arithmetic(Alu::Cmp, size, r.gprs.get(0), old, r.rflags);
    let equal = flags & ZF != 0;
    // Memory is written in any case.
    let value = if equal { register(insn, r, size) } else { old };
    put(insn, r, bus, value)?;
    if !equal {
        r.gprs.set(0, size, old);
    }
    r.rflags = flags;
    Ok(true)
}

fn bit(
    insn: &Insn,
    r: &mut Registers<'_>,
    bus: &mut impl Bus,
    op: Bit,
    source: Source,
) -> Result<bool, Stop> {
    let size = insn.size;
    let bits = u64::from(size) * 8;
    let mut at = spot(insn, r).ok_or(Stop::Unsupported)?;
    let number = operand(insn, r, source);
    if source == Source::Register {
        // The register's number reaches over all of memory.
        let unused = 64 - u32::from(size) * 8;
        let whole = (number << unused).cast_signed() >> unused;
        let elements = whole.div_euclid(bits.cast_signed());
        let bytes = elements.wrapping_mul(i64::from(size)).cast_unsigned();
        at.offset = truncate(at.offset.wrapping_add(bytes), insn.address_size);
    }
    let within = u32::try_from(number & (bits - 1)).unwrap_or(0);
    let old = bus.read(at, size, op != Bit::Test)?;
    let (value, flags) = alu::bit(op, old, within, r.rflags);
    if op != Bit::Test {
        bus.write(at, size, truncate(value, size))?;
    }
    r.rflags = flags;
    Ok(true)
}

const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;

fn at(r: &Registers<'_>, insn: &Insn, index: u8, segment: Seg) -> Spot {
    Spot { segment, offset: truncate(r.gprs.get(index), insn.address_size) }
}

fn advance(r: &mut Registers<'_>, insn: &Insn, index: u8) {
    let old = r.gprs.get(index);
    let step = u64::from(insn.size);
    let new = if r.rflags & DF != 0 { old.wrapping_sub(step) } else { old.wrapping_add(step) };
    r.gprs.set(index, insn.address_size, new);
}

/// Whether a repeated instruction is over before its next element.
fn exhausted(insn: &Insn, r: &Registers<'_>) -> bool {
    insn.rep != Rep::None && truncate(r.gprs.get(RCX), insn.address_size) == 0
}

/// Counts an element; whether it was the last one.
fn counted(insn: &Insn, r: &mut Registers<'_>, compares: bool) -> bool {
    if insn.rep == Rep::None {
        return true;
    }
    let left = r.gprs.get(RCX).wrapping_sub(1);
    r.gprs.set(RCX, insn.address_size, left);
    let equal = r.rflags & ZF != 0;
    truncate(left, insn.address_size) == 0 || compares && equal != (insn.rep == Rep::Equal)
}

fn string(insn: &Insn, r: &mut Registers<'_>, bus: &mut impl Bus) -> Result<bool, Stop> {
    if exhausted(insn, r) {
        return Ok(true);
    }
    let size = insn.size;
    let source = at(r, insn, RSI, insn.segment);
    let target = at(r, insn, RDI, Seg::Es);
    let compares = match insn.op {
        Op::Movs => {
            let value = bus.read(source, size, false)?;
            bus.write(target, size, value)?;
            false
        }
        Op::Stos => {
            bus.write(target, size, truncate(r.gprs.get(0), size))?;
            false
        }
        Op::Lods => {
            let value = bus.read(source, size, false)?;
            r.gprs.set(0, size, value);
            false
        }
        Op::Cmps => {
            let (a, b) = (bus.read(source, size, false)?, bus.read(target, size, false)?);
            r.rflags = alu::arithmetic(Alu::Cmp, size, a, b, r.rflags).1;
            true
        }
        _ => {
            let value = bus.read(target, size, false)?;
            r.rflags = alu::arithmetic(Alu::Cmp, size, r.gprs.get(0), value, r.rflags).1;
            true
        }
    };
    if matches!(insn.op, Op::Movs | Op::Lods | Op::Cmps) {
        advance(r, insn, RSI);
    }
    if !matches!(insn.op, Op::Lods) {
        advance(r, insn, RDI);
    }
    Ok(counted(insn, r, compares))
}

/// What an element of INS and OUTS comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// No element is left: the guest goes on after the instruction.
    Nothing,
    /// OUTS writes this.
    Out(u64, bool),
    /// INS has stored its value.
    In(bool),
    /// INS has to ask for a value.
    Ask,
}

/// Carries out one element of OUTS, or of INS with the value from its port.
///
/// # Errors
/// See [`Stop`].
pub(crate) fn port_element(
    insn: &Insn,
    r: &mut Registers<'_>,
    bus: &mut impl Bus,
    value: Option<u64>,
) -> Result<Element, Stop> {
    if exhausted(insn, r) {
        return Ok(Element::Nothing);
    }
    if insn.op == Op::Outs {
        let value = bus.read(at(r, insn, RSI, insn.segment), insn.size, false)?;
        advance(r, insn, RSI);
        return Ok(Element::Out(value, counted(insn, r, false)));
    }
    let target = at(r, insn, RDI, Seg::Es);
    let Some(value) = value else {
        // A fault comes before the port is read.
        return match bus.read(target, insn.size, true) {
            Ok(_) | Err(Stop::Ask { .. }) => Ok(Element::Ask),
            Err(stop) => Err(stop),
        };
    };
    bus.write(target, insn.size, truncate(value, insn.size))?;
    advance(r, insn, RDI);
    Ok(Element::In(counted(insn, r, false)))
}

fn sign_extend(value: u64, size: u8) -> u64 {
    let unused = 64 - u32::from(size) * 8;
    ((value << unused).cast_signed() >> unused).cast_unsigned()
}
