//! Arithmetic against this processor's own, instructions by hand, and no panic.

use super::execute::*;
use super::*;
use crate::x86_64::decode::{Alu, Mode, decode};
use crate::x86_64::regs::{Gprs, truncate};
use proptest::prelude::*;
use std::vec::Vec;

/// Memory of 64 bytes at 0x1000 of every segment; a device at 0x2000 that is asked.
struct Fake {
    memory: [u8; 64],
    answers: Vec<u64>,
    asked: usize,
    written: Option<(u64, u8, u64)>,
}

impl Default for Fake {
    fn default() -> Self {
        Self { memory: [0; 64], answers: Vec::new(), asked: 0, written: None }
    }
}

impl Fake {
    fn index(at: Spot, size: u8) -> Option<usize> {
        let index = usize::try_from(at.offset.checked_sub(0x1000)?).ok()?;
        (index + usize::from(size) <= 64).then_some(index)
    }
}

impl Bus for Fake {
    fn read(&mut self, at: Spot, size: u8, _write: bool) -> Result<u64, Stop> {
        if let Some(index) = Self::index(at, size) {
            let mut raw = [0u8; 8];
            let size = usize::from(size);
            raw[..size].copy_from_slice(&self.memory[index..index + size]);
            return Ok(u64::from_le_bytes(raw));
        }
        self.asked += 1;
        let answer = self.answers.get(self.asked - 1).copied();
        answer.map(|v| truncate(v, size)).ok_or(Stop::Ask { gpa: Gpa(at.offset), size })
    }

    fn write(&mut self, at: Spot, size: u8, value: u64) -> Result<(), Stop> {
        if let Some(index) = Self::index(at, size) {
            let size = usize::from(size);
            self.memory[index..index + size].copy_from_slice(&value.to_le_bytes()[..size]);
        } else {
            assert!(self.written.is_none(), "an instruction writes once");
            self.written = Some((at.offset, size, value));
        }
        Ok(())
    }
}

/// Registers of a test's own.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Own {
    gprs: Gprs,
    rflags: u64,
}

fn registers() -> Own {
    Own { gprs: Gprs::default(), rflags: 2 }
}

impl Own {
    fn with<T>(&mut self, act: impl FnOnce(&mut Registers<'_>) -> T) -> T {
        let mut r = Registers { gprs: &mut self.gprs, rflags: self.rflags, next: 0 };
        let result = act(&mut r);
        self.rflags = r.rflags;
        result
    }
}

/// Runs 64-bit code of one instruction.
fn run(code: &[u8], r: &mut Own, bus: &mut Fake) -> Result<bool, Stop> {
    let insn = decode(Mode::Bits64, code).unwrap();
    bus.asked = 0;
    r.with(|r| execute(&insn, r, bus))
}

#[test]
fn a_device_is_asked_once_and_then_written() {
    let (mut r, mut bus) = (registers(), Fake::default());
    r.gprs.0[Gprs::RBX] = 0x2000;
    r.gprs.0[Gprs::RCX] = 0xff;
    // or dword ptr [rbx], ecx
    let before = r;
    let ask = Stop::Ask { gpa: Gpa(0x2000), size: 4 };
    assert_eq!(run(&[0x09, 0x0b], &mut r, &mut bus), Err(ask));
    assert_eq!((r, bus.written), (before, None), "nothing has changed");
    bus.answers.push(0x1_0000_0000 | 0x1200);
    assert_eq!(run(&[0x09, 0x0b], &mut r, &mut bus), Ok(true));
    assert_eq!(bus.written, Some((0x2000, 4, 0x12ff)));
}

#[test]
fn registers_are_loaded_as_the_instruction_wants() {
    let (mut r, mut bus) = (registers(), Fake::default());
    bus.memory[..8].copy_from_slice(&0x8182_8384_8586_8788u64.to_le_bytes());
    for (code, register, expected) in [
        (&[0x8b, 0x0b][..], 1, 0x8586_8788),             // mov ecx, [rbx]
        (&[0x66, 0x8b, 0x0b], 1, 0xffff_ffff_ffff_8788), // mov cx, [rbx]
        (&[0x8a, 0x2b], 1, 0xffff_ffff_ffff_88ff),       // mov ch, [rbx]
        (&[0x40, 0x8a, 0x2b], 5, 0xffff_ffff_ffff_ff88), // mov bpl, [rbx]
        (&[0x48, 0x0f, 0xbe, 0x13], 2, 0xffff_ffff_ffff_ff88), // movsx rdx, byte
        (&[0x0f, 0xb7, 0x13], 2, 0x8788),                // movzx edx, word
        (&[0x48, 0x63, 0x13], 2, 0xffff_ffff_8586_8788), // movsxd rdx, dword
    ] {
        r.gprs.0 = [u64::MAX; 16];
        r.gprs.0[Gprs::RBX] = 0x1000;
        assert_eq!(run(code, &mut r, &mut bus), Ok(true));
        assert_eq!(r.gprs.0[register], expected, "{code:x?}");
    }
}

#[test]
fn strings_go_element_by_element() {
    let (mut r, mut bus) = (registers(), Fake::default());
    bus.memory[..4].copy_from_slice(&[1, 2, 3, 4]);
    r.gprs.0[Gprs::RSI] = 0x1000;
    r.gprs.0[Gprs::RDI] = 0x1010;
    r.gprs.0[Gprs::RCX] = 2;
    let rep_movsw = [0x66, 0xf3, 0xa5];
    assert_eq!(run(&rep_movsw, &mut r, &mut bus), Ok(false));
    assert_eq!(run(&rep_movsw, &mut r, &mut bus), Ok(true));
    assert_eq!(run(&rep_movsw, &mut r, &mut bus), Ok(true), "nothing is left");
    assert_eq!(&bus.memory[16..20], &[1, 2, 3, 4]);
    assert_eq!(
        [r.gprs.0[Gprs::RSI], r.gprs.0[Gprs::RDI], r.gprs.0[Gprs::RCX]],
        [0x1004, 0x1014, 0]
    );
    // std; repne scasb for 3 from 0x1013 downwards
    r.rflags |= 1 << 10;
    r.gprs.0[Gprs::RDI] = 0x1013;
    r.gprs.0[Gprs::RAX] = 3;
    r.gprs.0[Gprs::RCX] = 100;
    assert_eq!(run(&[0xf2, 0xae], &mut r, &mut bus), Ok(false));
    assert_eq!(run(&[0xf2, 0xae], &mut r, &mut bus), Ok(true));
    assert_eq!((r.gprs.0[Gprs::RCX], r.gprs.0[Gprs::RDI]), (98, 0x1011));
}

#[test]
fn bits_reach_beyond_their_operand() {
    let (mut r, mut bus) = (registers(), Fake::default());
    r.gprs.0[Gprs::RBX] = 0x1008;
    r.gprs.0[Gprs::RAX] = (-1i64).cast_unsigned();
    // bts dword ptr [rbx], eax: bit 31 of the word before
    assert_eq!(run(&[0x0f, 0xab, 0x03], &mut r, &mut bus), Ok(true));
    assert_eq!(bus.memory[7], 0x80);
    assert_eq!(r.rflags & 1, 0);
    r.gprs.0[Gprs::RAX] = 32 * 5 + 3;
    assert_eq!(run(&[0x0f, 0xab, 0x03], &mut r, &mut bus), Ok(true));
    assert_eq!(bus.memory[28], 8);
    assert_eq!(run(&[0x0f, 0xa3, 0x03], &mut r, &mut bus), Ok(true));
    assert_eq!(r.rflags & 1, 1);
}

#[test]
fn a_compare_and_exchange_does_either() {
    let (mut r, mut bus) = (registers(), Fake::default());
    bus.memory[0] = 5;
    r.gprs.0[Gprs::RBX] = 0x1000;
    r.gprs.0[Gprs::RAX] = 4;
    r.gprs.0[Gprs::RCX] = 9;
    let lock_cmpxchg = [0xf0, 0x0f, 0xb1, 0x0b];
    assert_eq!(run(&lock_cmpxchg, &mut r, &mut bus), Ok(true));
    assert_eq!((r.gprs.0[Gprs::RAX], bus.memory[0], r.rflags & 0x40), (5, 5, 0));
    assert_eq!(run(&lock_cmpxchg, &mut r, &mut bus), Ok(true));
    assert_eq!((bus.memory[0], r.rflags & 0x40), (9, 0x40));
}

/// What this processor makes of `a op b`: the result, and its flags.
macro_rules! native {
    ($op:literal, $kind:ty, $a:expr, $b:expr, $flags:expr) => {{
        let mut a = $a as $kind;
        let mut flags = $flags & 0x8d5 | 2;
        // SAFETY: registers and arithmetic flags only.
        unsafe {
            core::arch::asm!(
                "push {f}", "popfq", concat!($op, " {a}, {b}"), "pushfq", "pop {f}",
                f = inout(reg) flags, a = inout(reg) a, b = in(reg) $b as $kind,
            );
        }
        (u64::from(a), flags & 0x8d5)
    }};
}

macro_rules! native_sized {
    ($op:literal, $size:expr, $a:expr, $b:expr, $flags:expr) => {
        match $size {
            2 => native_word!($op, $a, $b, $flags),
            4 => native_dword!($op, $a, $b, $flags),
            _ => native!($op, u64, $a, $b, $flags),
        }
    };
}

macro_rules! native_word {
    ($op:literal, $a:expr, $b:expr, $flags:expr) => {{
        let mut a = $a;
        let mut flags = $flags & 0x8d5 | 2;
        // SAFETY: registers and arithmetic flags only.
        unsafe {
            core::arch::asm!(
                "push {f}", "popfq", concat!($op, " {a:x}, {b:x}"), "pushfq", "pop {f}",
                f = inout(reg) flags, a = inout(reg) a, b = in(reg) $b,
            );
        }
        (a & 0xffff, flags & 0x8d5)
    }};
}

macro_rules! native_dword {
    ($op:literal, $a:expr, $b:expr, $flags:expr) => {{
        let mut a = $a;
        let mut flags = $flags & 0x8d5 | 2;
        // SAFETY: registers and arithmetic flags only.
        unsafe {
            core::arch::asm!(
                "push {f}", "popfq", concat!($op, " {a:e}, {b:e}"), "pushfq", "pop {f}",
                f = inout(reg) flags, a = inout(reg) a, b = in(reg) $b,
            );
        }
        (a & 0xffff_ffff, flags & 0x8d5)
    }};
}

fn on_this_processor(op: Alu, size: u8, a: u64, b: u64, flags: u64) -> (u64, u64) {
    match op {
        Alu::Add => native_sized!("add", size, a, b, flags),
        Alu::Or => native_sized!("or", size, a, b, flags),
        Alu::Adc => native_sized!("adc", size, a, b, flags),
        Alu::Sbb => native_sized!("sbb", size, a, b, flags),
        Alu::And => native_sized!("and", size, a, b, flags),
        Alu::Sub => native_sized!("sub", size, a, b, flags),
        Alu::Xor => native_sized!("xor", size, a, b, flags),
        Alu::Cmp => native_sized!("cmp", size, a, b, flags),
    }
}

const OPS: [Alu; 8] =
    [Alu::Add, Alu::Or, Alu::Adc, Alu::Sbb, Alu::And, Alu::Sub, Alu::Xor, Alu::Cmp];

/// Values around the edges as often as others.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (0u32..64, -2i64..3).prop_map(|(bit, near)| (1u64 << bit).wrapping_add_signed(near)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn arithmetic_is_this_processors(
        op in prop::sample::select(OPS.to_vec()),
        size in prop::sample::select(std::vec![2u8, 4, 8]),
        a in value(), b in value(), flags: u64,
    ) {
        let flags = flags & 0x8d5 | 2;
        let (result, new) = super::alu::arithmetic(op, size, a, b, flags);
        let (expected, expected_flags) = on_this_processor(op, size, a, b, flags);
        // CMP writes no result; AF is undefined after logic.
        if op != Alu::Cmp {
            prop_assert_eq!(result, expected, "{:?} {}", op, size);
        }
        let mask = if matches!(op, Alu::Or | Alu::And | Alu::Xor) { !0x10 } else { !0 };
        prop_assert_eq!(new & 0x8d5 & mask, expected_flags & mask, "{:?} {} {:x} {:x}", op, size, a, b);
    }

    #[test]
    fn bytes_are_words_in_the_upper_half(
        op in prop::sample::select(OPS.to_vec()), a: u8, b: u8, carry: bool,
    ) {
        // Shifted up a byte, the lower one holds the carry in; PF and AF differ and are left out.
        let flags = 2 | u64::from(carry);
        let (result, new) = super::alu::arithmetic(op, 1, a.into(), b.into(), flags);
        let with = matches!(op, Alu::Adc | Alu::Sbb) && carry;
        let low = if with && op == Alu::Adc { 0x80 } else { 0 };
        let (wide_a, wide_b) = (u64::from(a) << 8 | low, u64::from(b) << 8 | low);
        let plain = match op { Alu::Adc => Alu::Add, Alu::Sbb => Alu::Sub, op => op };
        let wide_b = if with && op == Alu::Sbb { wide_b.wrapping_add(0x100) } else { wide_b };
        prop_assume!(!(with && op == Alu::Sbb && b == 0xff));
        let (expected, flags) = super::alu::arithmetic(plain, 2, wide_a, wide_b, 2);
        prop_assert_eq!(result, expected >> 8);
        let mask = if with { 1 | 0x80 } else { 1 | 0x80 | 0x800 };
        prop_assert_eq!(new & mask, flags & mask);
    }

    #[test]
    fn no_instruction_makes_it_panic(
        code in prop::collection::vec(any::<u8>(), 1..16),
        gprs in prop::array::uniform16(prop_oneof![any::<u64>(), 0x0ff0u64..0x2010]),
        rflags: u64, answer: u64,
    ) {
        for mode in [Mode::Bits16, Mode::Bits32, Mode::Bits64] {
            let Ok(insn) = decode(mode, &code) else { continue };
            let mut r = Own { gprs: Gprs(gprs), rflags };
            let mut bus = Fake { answers: std::vec![answer; 2], ..Fake::default() };
            let before = r;
            if r.with(|r| execute(&insn, r, &mut bus)).is_err() {
                prop_assert_eq!(r, before);
            }
            let mut bus = Fake { answers: std::vec![answer; 2], ..Fake::default() };
            let _ = r.with(|r| port_element(&insn, r, &mut bus, Some(answer)));
        }
    }
}
