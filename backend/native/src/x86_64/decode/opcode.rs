//! The opcode maps, as far as they are wanted.

use super::Failure;
use super::cursor::Cursor;
use super::insn::{Address, Alu, Bit, Insn, Mode, Op, Place, Plain, Source};

const ALU: [Alu; 8] =
    [Alu::Add, Alu::Or, Alu::Adc, Alu::Sbb, Alu::And, Alu::Sub, Alu::Xor, Alu::Cmp];
const BITS: [Bit; 4] = [Bit::Test, Bit::Set, Bit::Reset, Bit::Complement];

/// An operation, and the immediate that follows ModRM, of so many bytes.
type Meaning = (Op, u8);

/// Decodes what follows the prefixes.
pub(super) fn decode(c: &mut Cursor<'_>) -> Result<Insn, Failure> {
    let opcode = c.opcode;
    match opcode {
        0x0f => two_byte(c),
        0x00..=0x3f if opcode & 7 < 4 => {
            let alu = ALU[usize::from(opcode >> 3 & 7)];
            let op = if opcode & 2 == 0 {
                Op::ToMemory(alu, Source::Register)
            } else {
                Op::FromMemory(alu)
            };
            modrm(c, size(c, opcode), |_| Some((op, 0)))
        }
        0x63 if c.mode == Mode::Bits64 => {
            let to = c.operand_size();
            // Without REX.W it is a MOV of that size.
            modrm(c, to.min(4), |_| Some((Op::Extend { to, signed: true }, 0)))
        }
        0x6c..=0x6f => {
            let op = if opcode & 2 == 0 { Op::Ins } else { Op::Outs };
            string(c, op, size(c, opcode).min(4))
        }
        0x80 | 0x81 | 0x83 => {
            let size = size(c, opcode);
            let immediate = if opcode == 0x81 { size.min(4) } else { 1 };
            modrm(c, size, |group| {
                Some((Op::ToMemory(ALU[usize::from(group)], Source::Immediate), immediate))
            })
        }
        0x82 if c.mode != Mode::Bits64 => {
            modrm(c, 1, |group| Some((Op::ToMemory(ALU[usize::from(group)], Source::Immediate), 1)))
        }
        0x84 | 0x85 => modrm(c, size(c, opcode), |_| Some((Op::Test(Source::Register), 0))),
        0x86 | 0x87 => modrm(c, size(c, opcode), |_| Some((Op::Xchg, 0))),
        0x88 | 0x89 => modrm(c, size(c, opcode), |_| Some((Op::Store(Source::Register), 0))),
        0x8a | 0x8b => modrm(c, size(c, opcode), |_| Some((Op::Load, 0))),
        0x90 if c.rep == super::Rep::Equal || !c.has_rex() => Ok(plain(c, Plain::Nothing)),
        0xa0..=0xa3 => offset(c),
        0xa4 | 0xa5 => string(c, Op::Movs, size(c, opcode)),
        0xa6 | 0xa7 => string(c, Op::Cmps, size(c, opcode)),
        0xaa | 0xab => string(c, Op::Stos, size(c, opcode)),
        0xac | 0xad => string(c, Op::Lods, size(c, opcode)),
        0xae | 0xaf => string(c, Op::Scas, size(c, opcode)),
        0xc6 | 0xc7 => {
            let size = size(c, opcode);
            modrm(c, size, |group| {
                (group == 0).then_some((Op::Store(Source::Immediate), size.min(4)))
            })
        }
        0xf4 => Ok(plain(c, Plain::Hlt)),
        0xf6 | 0xf7 => {
            let size = size(c, opcode);
            modrm(c, size, |group| {
                Some(match group {
                    0 | 1 => (Op::Test(Source::Immediate), size.min(4)),
                    2 => (Op::Not, 0),
                    3 => (Op::Neg, 0),
                    _ => return None,
                })
            })
        }
        0xfe | 0xff => modrm(c, size(c, opcode), |group| {
            Some(match group {
                0 => (Op::Inc, 0),
                1 => (Op::Dec, 0),
                _ => return None,
            })
        }),
        _ => Err(Failure::Unknown),
    }
}

fn two_byte(c: &mut Cursor<'_>) -> Result<Insn, Failure> {
    let opcode = c.byte()?;
    match opcode {
        0x01 => {
            let which = match c.byte()? {
                0xc1 => Plain::Vmcall,
                0xd1 => Plain::Xsetbv,
                0xd9 => Plain::Vmmcall,
                _ => return Err(Failure::Unknown),
            };
            Ok(plain(c, which))
        }
        0x08 => Ok(plain(c, Plain::Invd)),
        0x09 => Ok(plain(c, Plain::Wbinvd)),
        0x0d | 0x18..=0x1f => {
            // Prefetches and reserved NOPs; two of them have meanings in CET, cache control, MPX.
            if opcode != 0x0d && opcode != 0x18 && opcode != 0x1f || c.peek()? >= 0xc0 {
                return Err(Failure::Unknown);
            }
            modrm(c, 1, |_| Some((Op::Plain(Plain::Nothing), 0)))
        }
        0x20 | 0x22 => {
            let (register, place) = c.modrm_registers()?;
            // LOCK is another way to name CR8.
            let number = if c.lock && register == 0 { 8 } else { register };
            let op = if opcode == 0x20 { Op::FromCr(number) } else { Op::ToCr(number) };
            let size = if c.mode == Mode::Bits64 { 8 } else { 4 };
            Ok(Insn { size, place, ..blank(c, op) })
        }
        0x30 => Ok(plain(c, Plain::Wrmsr)),
        0x32 => Ok(plain(c, Plain::Rdmsr)),
        0x33 => Ok(plain(c, Plain::Rdpmc)),
        0xa2 => Ok(plain(c, Plain::Cpuid)),
        0xa3 | 0xab | 0xb3 | 0xbb => {
            let bit = BITS[usize::from(opcode >> 3 & 3)];
            modrm(c, c.operand_size(), |_| Some((Op::Bit(bit, Source::Register), 0)))
        }
        0xba => modrm(c, c.operand_size(), |group| {
            let bit = BITS[usize::from(group.checked_sub(4)?)];
            Some((Op::Bit(bit, Source::Immediate), 1))
        }),
        0xb0 | 0xb1 => modrm(c, size(c, opcode), |_| Some((Op::CmpXchg, 0))),
        0xb6 | 0xb7 | 0xbe | 0xbf => {
            let to = c.operand_size();
            let signed = opcode & 8 != 0;
            modrm(c, 1 << (opcode & 1), |_| Some((Op::Extend { to, signed }, 0)))
        }
        0xc0 | 0xc1 => modrm(c, size(c, opcode), |_| Some((Op::Xadd, 0))),
        0xc3 if c.operand_size() != 2 && c.rep == super::Rep::None => {
            if c.peek()? >= 0xc0 {
                return Err(Failure::Unknown);
            }
            modrm(c, c.operand_size(), |_| Some((Op::Store(Source::Register), 0)))
        }
        _ => Err(Failure::Unknown),
    }
}

/// Bytes, or the operand size, by the opcode's lowest bit.
fn size(c: &Cursor<'_>, opcode: u8) -> u8 {
    if opcode & 1 == 0 { 1 } else { c.operand_size() }
}

/// An instruction with ModRM, whose meaning may depend on its register field.
fn modrm(
    c: &mut Cursor<'_>,
    size: u8,
    meaning: impl Fn(u8) -> Option<Meaning>,
) -> Result<Insn, Failure> {
    let (register, place) = c.modrm()?;
    let (op, immediate) = meaning(register & 7).ok_or(Failure::Unknown)?;
    let immediate = if immediate == 0 { 0 } else { c.immediate(immediate)? };
    let segment = c.segment(&place);
    Ok(Insn { size, place, segment, register, immediate, ..blank(c, op) })
}

/// MOV of the accumulator to or from an address that the instruction holds.
fn offset(c: &mut Cursor<'_>) -> Result<Insn, Failure> {
    let size = size(c, c.opcode);
    let displacement = c.signed(c.address_size())?;
    let place =
        Place::Memory(Address { base: None, index: None, displacement, rip_relative: false });
    let op = if c.opcode & 2 == 0 { Op::Load } else { Op::Store(Source::Register) };
    let segment = c.segment(&place);
    Ok(Insn { size, place, segment, ..blank(c, op) })
}

fn string(c: &Cursor<'_>, op: Op, size: u8) -> Result<Insn, Failure> {
    // The source is at DS:rSI or where a prefix says; the destination is always at ES:rDI.
    Ok(Insn { size, segment: c.segment(&Place::Register(0)), ..blank(c, op) })
}

fn plain(c: &Cursor<'_>, plain: Plain) -> Insn {
    blank(c, Op::Plain(plain))
}

fn blank(c: &Cursor<'_>, op: Op) -> Insn {
    Insn {
        op,
        size: 0,
        // Never more than `MAX_LEN`.
        len: u8::try_from(c.at).unwrap_or(0),
        address_size: c.address_size(),
        place: Place::Register(0),
        segment: super::Seg::Ds,
        register: 0,
        rex: c.has_rex(),
        immediate: 0,
        rep: c.rep,
        lock: c.lock,
    }
}
