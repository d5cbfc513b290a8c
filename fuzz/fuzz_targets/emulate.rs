//! Any bytes as privileged instructions of a sandboxed guest, with its tables and stacks anywhere:
//! carried out, refused or ended, never a panic, and nothing that the guest may not write is
//! written.

#![no_main]

use arbitrary::Arbitrary;
use backend_sandbox::emulate::exception::deliver;
use backend_sandbox::emulate::{Cpu, MAX_LEN, Regs, Step, Vector, decode, step};
use fuzz::ram::Ram;
use fuzz::values::Word;
use hypervisor::memory::{Gpa, Perms};
use hypervisor::vcpu::{Segment, X86State};
use libfuzzer_sys::fuzz_target;

const START: u64 = 0x10_0000;
const END: u64 = START + 0x4000;
const INPUT: std::ops::Range<u64> = START + 0x3000..START + 0x4000;
/// Flags that a guest may have; the real interrupt flag is always set.
const IF: u64 = 1 << 9;

#[derive(Debug, Arbitrary)]
struct Input {
    /// Code, one instruction after the other.
    code: Vec<[u8; 16]>,
    regs: [Word; 16],
    flags: u16,
    fs_base: Word,
    /// What is in memory: tables, stacks.
    memory: Vec<(u16, u64)>,
    /// An exception of the real CPU, before all.
    exception: Option<(u8, u32)>,
}

fuzz_target!(|input: Input| {
    let mut ram = Ram::new(START..END);
    ram.close(INPUT, 0xa5, Perms::READ);
    let word = |word: Word| word.get(START, END);
    for (offset, value) in input.memory.iter().take(64) {
        let _ = ram.memory.write_obj(Gpa(START + u64::from(*offset)), value);
    }
    let mut cpu = Cpu::new(&state());
    let mut regs = Regs {
        gpr: input.regs.map(word),
        rip: START,
        rflags: u64::from(input.flags) | IF | 2,
        fs_base: word(input.fs_base),
        gs_base: 0,
    };
    if let Some((number, error)) = input.exception {
        let _ = deliver(Vector::hardware(number, error), &mut cpu, &mut regs, &ram.memory);
    }
    for code in input.code.iter().take(16) {
        one(code, &mut cpu, &mut regs, &ram);
    }
    assert!(ram.is_filled(INPUT, 0xa5));
});

fn one(code: &[u8; 16], cpu: &mut Cpu, regs: &mut Regs, ram: &Ram) {
    if let Some(insn) = decode(code) {
        assert!(usize::from(insn.len.get()) <= MAX_LEN);
        // What has been decoded does not depend on what follows it.
        assert!(decode(&code[..usize::from(insn.len.get())]).is_some());
    }
    regs.rip = START;
    if ram.memory.write_bytes(Gpa(START), code).is_err() {
        return;
    }
    match step(cpu, regs, &ram.memory) {
        Step::Raise(vector) => drop(deliver(vector, cpu, regs, &ram.memory)),
        Step::Io { size, write: None, .. } => regs.set_port_answer(size, u64::MAX),
        _ => {}
    }
    assert!(regs.rflags & IF != 0, "the real interrupt flag is not the guest's");
}

/// As the tender starts a guest.
fn state() -> X86State {
    let segment = |selector, attributes| Segment { selector, base: 0, limit: !0, attributes };
    X86State {
        rip: START,
        gdt: (0x1000, 23),
        cr0: 0x8001_0021,
        cr3: 0x2000,
        cr4: 0x620,
        efer: 0x500,
        rflags: 2,
        cs: segment(8, 0xa99),
        data: segment(16, 0xc93),
        ..X86State::default()
    }
}
