//! Classic BPF as seccomp(2) runs it (Linux `include/uapi/linux/{filter,seccomp,audit}.h`).
//!
//! Every function makes one instruction, except [`skip_within`] and [`skip_beyond`]. "Skip" counts
//! the instructions after the one that skips.

use super::Within;
use core::ops::Range;

/// `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) if_true: u8,
    pub(super) if_false: u8,
    pub(super) k: u32,
}

pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQ: u16 = 0x15;
pub(super) const JUMP_GT: u16 = 0x25;
pub(super) const JUMP_GT_X: u16 = 0x2d;
pub(super) const JUMP_GE: u16 = 0x35;
pub(super) const JUMP_SET: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;
pub(super) const ADD: u16 = 0x04;
pub(super) const NEGATE: u16 = 0x84;
pub(super) const TO_X: u16 = 0x07;

/// SECCOMP_RET_ALLOW.
pub(super) const ALLOW: u32 = 0x7fff_0000;
/// SECCOMP_RET_KILL_PROCESS.
pub(super) const KILL: u32 = 0x8000_0000;
/// SECCOMP_RET_TRAP.
pub(super) const TRAP: u32 = 0x0003_0000;

/// AUDIT_ARCH_X86_64.
pub(super) const AUDIT_ARCH: u32 = 0xc000_003e;
/// Set in the numbers of x32's system calls.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// A 32-bit word of `struct seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Number,
    Arch,
    IpLow,
    IpHigh,
    /// Lower half of an argument.
    Low(u8),
    /// Upper half of an argument.
    High(u8),
}

impl Word {
    fn offset(self) -> u32 {
        match self {
            Self::Number => 0,
            Self::Arch => 4,
            Self::IpLow => 8,
            Self::IpHigh => 12,
            Self::Low(index) => 16 + 8 * u32::from(index),
            Self::High(index) => 20 + 8 * u32::from(index),
        }
    }
}

const fn op(code: u16, if_true: u8, if_false: u8, k: u32) -> Instruction {
    Instruction { code, if_true, if_false, k }
}

pub(super) fn load(word: Word) -> Instruction {
    op(LOAD, 0, 0, word.offset())
}

pub(super) const fn ret(verdict: u32) -> Instruction {
    op(RETURN, 0, 0, verdict)
}

/// Skips any number of instructions; programs are shorter than 2^32.
pub(super) fn jump(skip: usize) -> Instruction {
    op(JUMP, 0, 0, u32::try_from(skip).unwrap_or(u32::MAX))
}

pub(super) const fn skip_if_eq(k: u32, skip: u8) -> Instruction {
    op(JUMP_EQ, skip, 0, k)
}

pub(super) const fn skip_unless_eq(k: u32, skip: u8) -> Instruction {
    op(JUMP_EQ, 0, skip, k)
}

pub(super) const fn skip_unless_any(bits: u32, skip: u8) -> Instruction {
    op(JUMP_SET, 0, skip, bits)
}

/// Makes a [`skip_unless_eq`] skip this much; leaves other instructions alone. What does not fit
/// goes to the kernel as a jump out of the program, which it refuses.
pub(super) fn set_skip(instruction: &mut Instruction, skip: usize) {
    if instruction.code == JUMP_EQ {
        instruction.if_false = u8::try_from(skip).unwrap_or(u8::MAX);
    }
}

/// Instructions of [`skip_within`].
pub(super) const WITHIN: usize = 5;

/// Skips if the calling instruction's end is in a range that does not cross a multiple of 4 GiB.
pub(super) fn skip_within(range: &Range<u64>, skip: usize) -> [Instruction; WITHIN] {
    let skip = u8::try_from(skip).unwrap_or(u8::MAX);
    [
        load(Word::IpHigh),
        op(JUMP_EQ, 0, 3, high(range.start)),
        load(Word::IpLow),
        op(JUMP_GE, 0, 1, low(range.start)),
        op(JUMP_GE, 0, skip, low(range.end)),
    ]
}

/// Instructions of [`skip_beyond`].
pub(super) const BEYOND: usize = 15;

/// Skips one instruction more if a transfer does not stay within its end. The accumulator is lost.
pub(super) fn skip_beyond(within: &Within) -> [Instruction; BEYOND] {
    let Within { offset, length, end } = *within;
    // In units of 4 GiB, and what is left of it.
    let (units, rest) = (high(end), low(end));
    [
        load(Word::High(length)),
        op(JUMP_EQ, 0, 14, 0),
        load(Word::High(offset)),
        // The last unit: as far as the rest of it.
        op(JUMP_EQ, 4, 0, units),
        op(JUMP_GT, 11, 0, units),
        // Two units before the end and further, no length reaches beyond it.
        op(JUMP_EQ, 0, 9, units.wrapping_sub(1)),
        // One unit before the end, only an offset that is further into it can.
        load(Word::Low(offset)),
        op(JUMP_GT, 2, 7, rest),
        load(Word::Low(offset)),
        op(JUMP_GT, 6, 0, rest),
        // There is room for `rest - offset`, which is modulo 4 GiB where the offset is further.
        op(NEGATE, 0, 0, 0),
        op(ADD, 0, 0, rest),
        op(TO_X, 0, 0, 0),
        load(Word::Low(length)),
        op(JUMP_GT_X, 1, 0, 0),
    ]
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
pub(super) const fn low(value: u64) -> u32 {
    value as u32
}

pub(super) const fn high(value: u64) -> u32 {
    low(value >> 32)
}
