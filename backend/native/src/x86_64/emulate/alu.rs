//! Arithmetic with flags: AMD APM vol. 3.

use crate::x86_64::decode::{Alu, Bit};
use crate::x86_64::regs::truncate;

pub(crate) const CF: u64 = 1 << 0;
pub(crate) const PF: u64 = 1 << 2;
pub(crate) const AF: u64 = 1 << 4;
pub(crate) const ZF: u64 = 1 << 6;
pub(crate) const SF: u64 = 1 << 7;
pub(crate) const DF: u64 = 1 << 10;
pub(crate) const OF: u64 = 1 << 11;
const ALL: u64 = CF | PF | AF | ZF | SF | OF;

fn sign(value: u64, size: u8) -> bool {
    value >> (u32::from(size) * 8 - 1) & 1 != 0
}

fn flag(mask: u64, set: bool) -> u64 {
    if set { mask } else { 0 }
}

/// ZF, SF and PF of a result.
fn of_result(value: u64, size: u8) -> u64 {
    let even = (value & 0xff).count_ones().is_multiple_of(2);
    flag(ZF, value == 0) | flag(SF, sign(value, size)) | flag(PF, even)
}

/// `a op b` of `size` bytes: the result and the flags.
pub(super) fn arithmetic(op: Alu, size: u8, a: u64, b: u64, flags: u64) -> (u64, u64) {
    let (a, b) = (truncate(a, size), truncate(b, size));
    let carry = flags & CF;
    match op {
        Alu::Add => add(size, a, b, 0, flags),
        Alu::Adc => add(size, a, b, carry, flags),
        Alu::Sub | Alu::Cmp => subtract(size, a, b, 0, flags),
        Alu::Sbb => subtract(size, a, b, carry, flags),
        Alu::Or => logic(size, a | b, flags),
        Alu::And => logic(size, a & b, flags),
        Alu::Xor => logic(size, a ^ b, flags),
    }
}

fn logic(size: u8, value: u64, flags: u64) -> (u64, u64) {
    // AF is undefined; processors clear it.
    (value, flags & !ALL | of_result(value, size))
}

fn add(size: u8, a: u64, b: u64, carry: u64, flags: u64) -> (u64, u64) {
    let wide = u128::from(a) + u128::from(b) + u128::from(carry);
    let value = truncate(a.wrapping_add(b).wrapping_add(carry), size);
    let overflow = sign(!(a ^ b) & (a ^ value), size);
    let out = flag(CF, wide >> (u32::from(size) * 8) != 0)
        | flag(AF, (a ^ b ^ value) & 0x10 != 0)
        | flag(OF, overflow);
    (value, flags & !ALL | out | of_result(value, size))
}

fn subtract(size: u8, a: u64, b: u64, borrow: u64, flags: u64) -> (u64, u64) {
    let value = truncate(a.wrapping_sub(b).wrapping_sub(borrow), size);
    let overflow = sign((a ^ b) & (a ^ value), size);
    let out = flag(CF, u128::from(a) < u128::from(b) + u128::from(borrow))
        | flag(AF, (a ^ b ^ value) & 0x10 != 0)
        | flag(OF, overflow);
    (value, flags & !ALL | out | of_result(value, size))
}

/// INC (`1`) and DEC (`-1`): CF stays.
pub(super) fn step(size: u8, a: u64, down: bool, flags: u64) -> (u64, u64) {
    let op = if down { Alu::Sub } else { Alu::Add };
    let (value, new) = arithmetic(op, size, a, 1, flags);
    (value, new & !CF | flags & CF)
}

/// A bit instruction: the new value, and CF is the bit's old one.
pub(super) fn bit(op: Bit, value: u64, number: u32, flags: u64) -> (u64, u64) {
    let mask = 1 << number;
    let new = match op {
        Bit::Test => value,
        Bit::Set => value | mask,
        Bit::Reset => value & !mask,
        Bit::Complement => value ^ mask,
    };
    (new, flags & !CF | flag(CF, value & mask != 0))
}
