//! The decoder against another one, and a few instructions by hand.

use super::*;
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec::Vec;
use yaxpeax_arch::LengthedInstruction;

fn d(mode: Mode, bytes: &[u8]) -> Insn {
    decode(mode, bytes).unwrap()
}

#[test]
fn instructions_of_every_shape() {
    // movzx eax, byte ptr [rbx + rcx*4 - 8]
    let insn = d(Mode::Bits64, &[0x0f, 0xb6, 0x44, 0x8b, 0xf8]);
    let address =
        Address { base: Some(3), index: Some((1, 2)), displacement: -8, rip_relative: false };
    assert_eq!(insn.op, Op::Extend { to: 4, signed: false });
    assert_eq!((insn.size, insn.len, insn.place), (1, 5, Place::Memory(address)));
    // mov [rip + 0x10], r9
    let insn = d(Mode::Bits64, &[0x4c, 0x89, 0x0d, 0x10, 0, 0, 0]);
    let Place::Memory(address) = insn.place else { panic!("{insn:?}") };
    assert!(address.rip_relative && address.base.is_none());
    assert_eq!((insn.register, insn.size, insn.len), (9, 8, 7));
    // mov word ptr [bp + si], 0x1234 in 16-bit code
    let insn = d(Mode::Bits16, &[0xc7, 0x02, 0x34, 0x12]);
    assert_eq!((insn.op, insn.size, insn.immediate), (Op::Store(Source::Immediate), 2, 0x1234));
    assert_eq!(insn.segment, Seg::Ss);
    // mov eax, fs:[0x12345678] in 32-bit code
    let insn = d(Mode::Bits32, &[0x64, 0xa1, 0x78, 0x56, 0x34, 0x12]);
    assert_eq!((insn.op, insn.segment, insn.size), (Op::Load, Seg::Fs, 4));
    // mov al, [0xffffffffffffff00]
    let insn = d(Mode::Bits64, &[0xa0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!((insn.size, insn.len), (1, 9));
    // rep movsq
    let insn = d(Mode::Bits64, &[0xf3, 0x48, 0xa5]);
    assert_eq!((insn.op, insn.size, insn.rep), (Op::Movs, 8, Rep::Equal));
    // lock bts [rdi], 5
    let insn = d(Mode::Bits64, &[0xf0, 0x0f, 0xba, 0x2f, 5]);
    assert_eq!((insn.op, insn.lock), (Op::Bit(Bit::Set, Source::Immediate), true));
    // mov cr8, rax in both spellings
    assert_eq!(d(Mode::Bits64, &[0x44, 0x0f, 0x22, 0xc0]).op, Op::ToCr(8));
    assert_eq!(d(Mode::Bits32, &[0xf0, 0x0f, 0x22, 0xc0]).op, Op::ToCr(8));
    // A REX prefix before another prefix means nothing.
    assert_eq!(d(Mode::Bits64, &[0x48, 0x66, 0x89, 0x03]).size, 2);
}

#[test]
fn every_beginning_of_an_instruction_is_too_short() {
    let bytes = [0x66, 0x41, 0x81, 0x84, 0x8b, 1, 2, 3, 4, 5, 6];
    for len in 0..bytes.len() {
        assert_eq!(decode(Mode::Bits64, &bytes[..len]), Err(Failure::Short), "{len}");
    }
    assert_eq!(usize::from(d(Mode::Bits64, &bytes).len), bytes.len());
    assert_eq!(decode(Mode::Bits64, &[0x66; 20]), Err(Failure::Short), "at most 15 bytes");
}

/// What the other decoder says: the text, and the length.
fn other(mode: Mode, bytes: &[u8]) -> Option<(String, u64)> {
    macro_rules! by {
        ($module:ident) => {{
            let decoder = yaxpeax_x86::$module::InstDecoder::default();
            let insn = decoder.decode_slice(bytes).ok()?;
            Some((insn.to_string(), u64::from(insn.len().to_const())))
        }};
    }
    match mode {
        Mode::Bits16 => by!(real_mode),
        Mode::Bits32 => by!(protected_mode),
        Mode::Bits64 => by!(amd64),
    }
}

/// The mnemonic that the other decoder should have found, and whether memory is written.
fn mnemonics(insn: &Insn) -> &'static [&'static str] {
    match insn.op {
        Op::Load => &["mov"],
        Op::Store(_) => &["mov", "movnti"],
        Op::Extend { signed: false, .. } => &["movzx", "movzx_b", "movzx_w"],
        Op::Extend { signed: true, .. } => &["movsx", "movsxd", "movsx_b", "movsx_w"],
        Op::ToMemory(alu, _) | Op::FromMemory(alu) => match alu {
            Alu::Add => &["add"],
            Alu::Or => &["or"],
            Alu::Adc => &["adc"],
            Alu::Sbb => &["sbb"],
            Alu::And => &["and"],
            Alu::Sub => &["sub"],
            Alu::Xor => &["xor"],
            Alu::Cmp => &["cmp"],
        },
        Op::Test(_) => &["test"],
        Op::Xchg => &["xchg"],
        Op::Xadd => &["xadd"],
        Op::CmpXchg => &["cmpxchg"],
        Op::Bit(Bit::Test, _) => &["bt"],
        Op::Bit(Bit::Set, _) => &["bts"],
        Op::Bit(Bit::Reset, _) => &["btr"],
        Op::Bit(Bit::Complement, _) => &["btc"],
        Op::Not => &["not"],
        Op::Neg => &["neg"],
        Op::Inc => &["inc"],
        Op::Dec => &["dec"],
        Op::Movs => &["movs"],
        Op::Cmps => &["cmps"],
        Op::Stos => &["stos"],
        Op::Lods => &["lods"],
        Op::Scas => &["scas"],
        Op::Ins => &["ins"],
        Op::Outs => &["outs"],
        Op::ToCr(_) | Op::FromCr(_) => &["mov"],
        Op::Plain(plain) => match plain {
            Plain::Cpuid => &["cpuid"],
            Plain::Hlt => &["hlt"],
            Plain::Rdmsr => &["rdmsr"],
            Plain::Wrmsr => &["wrmsr"],
            Plain::Rdpmc => &["rdpmc"],
            Plain::Vmmcall => &["vmmcall"],
            Plain::Vmcall => &["vmcall"],
            Plain::Xsetbv => &["xsetbv"],
            Plain::Invd => &["invd"],
            Plain::Wbinvd => &["wbinvd"],
            Plain::Nothing => &["nop", "pause", "prefetch", "xchg"],
        },
    }
}

/// The address as the other decoder writes it, without the segment.
fn written(insn: &Insn) -> Option<String> {
    use std::format;
    const NAMES: [[&str; 16]; 3] = [
        ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "", "", "", "", "", "", "", ""],
        [
            "eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "r8d", "r9d", "r10d", "r11d",
            "r12d", "r13d", "r14d", "r15d",
        ],
        [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11",
            "r12", "r13", "r14", "r15",
        ],
    ];
    let Place::Memory(Address { base: Some(base), index, displacement, .. }) = insn.place else {
        return None;
    };
    let names = &NAMES[usize::from(insn.address_size / 4)];
    let mut text = format!("[{}", names[usize::from(base)]);
    if let Some((index, shift)) = index {
        text += &format!(" + {} * {}", names[usize::from(index)], 1 << shift);
    }
    match displacement {
        // It may write a displacement of 0.
        0 => return Some(text),
        d if d < 0 => text += &format!(" - {:#x}", d.unsigned_abs()),
        d => text += &format!(" + {d:#x}"),
    }
    Some(text + "]")
}

/// The width of the operand in memory, as the other decoder writes it.
fn width(insn: &Insn) -> &'static str {
    match insn.size {
        1 => "byte",
        2 => "word",
        4 => "dword",
        _ => "qword",
    }
}

/// Bytes that begin like the instructions in question more often than chance would have it.
fn code() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(std::vec![
        0x66u8, 0x67, 0x64, 0x65, 0x2e, 0xf0, 0xf2, 0xf3, 0x41, 0x48, 0x4d, 0x44, 0x42
    ]);
    let opcode = prop_oneof![
        any::<u8>().prop_map(|b| std::vec![b]),
        any::<u8>().prop_map(|b| std::vec![0x0f, b]),
        prop::sample::select(std::vec![
            0x63u8, 0x80, 0x81, 0x83, 0x88, 0x89, 0x8a, 0x8b, 0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5,
            0xaa, 0xab, 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff
        ])
        .prop_map(|b| std::vec![b]),
        prop::sample::select(std::vec![
            0xa3u8, 0xab, 0xb3, 0xbb, 0xba, 0xb0, 0xb1, 0xb6, 0xb7, 0xbe, 0xbf, 0xc0, 0xc1, 0xc3
        ])
        .prop_map(|b| std::vec![0x0f, b]),
    ];
    (prop::collection::vec(prefix, 0..4), opcode, prop::collection::vec(any::<u8>(), 0..12))
        .prop_map(|(a, b, c)| [a, b, c].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(15_000))]

    #[test]
    fn decodes_as_another_decoder_does(
        code in code(),
        mode in prop::sample::select(std::vec![Mode::Bits16, Mode::Bits32, Mode::Bits64]),
    ) {
        let Ok(insn) = decode(mode, &code) else { return Ok(()) };
        let Some((text, len)) = other(mode, &code) else { return Ok(()) };
        // Of two REX prefixes only the second counts; the other one adds them.
        if mode == Mode::Bits64 && code.windows(2).any(|w| w[0] & 0xf0 == 0x40 && w[1] & 0xf0 == 0x40) {
            return Ok(());
        }
        prop_assert_eq!(u64::from(insn.len), len, "{} {:?}", &text, insn);
        let words = mnemonics(&insn);
        let name = text.split(' ').find(|word| !matches!(
            *word, "lock" | "rep" | "repe" | "repz" | "repne" | "repnz" | "xacquire" | "xrelease"
        )).unwrap_or("");
        prop_assert!(words.iter().any(|word| name.starts_with(word)), "{} {:?}", &text, insn);
        let Place::Memory(_) = insn.place else { return Ok(()) };
        if insn.op == Op::Plain(Plain::Nothing) {
            return Ok(());
        }
        // The other one takes 0F BA for 64-bit, and the source of a 16-bit MOVSXD for 32-bit.
        if !matches!(insn.op, Op::Bit(_, Source::Immediate) | Op::Extend { to: 2, .. }) {
            let found = text.split([' ', ',']).any(|word| word == width(&insn));
            prop_assert!(found, "{} {:?}", &text, insn);
        }
        // In 16-bit code with 32-bit addresses the other one names the index by its lower half.
        if let Some(address) = written(&insn)
            && (mode != Mode::Bits16 || insn.address_size == 2)
        {
            prop_assert!(text.contains(&address), "{} has no {} {:?}", &text, address, insn);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
        for mode in [Mode::Bits16, Mode::Bits32, Mode::Bits64] {
            if let Ok(insn) = decode(mode, &bytes) {
                prop_assert!(usize::from(insn.len) <= bytes.len().min(MAX_LEN));
            }
        }
    }
}
