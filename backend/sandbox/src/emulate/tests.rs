//! Instructions one at a time, on 64 KiB of memory, and the decoder against another one.

use super::exception::{TripleFault, deliver};
use super::*;
use hypervisor::memory::{Gpa, GuestMemory, HostBlock};
use hypervisor::vcpu::{Segment, X86State};
use proptest::prelude::*;
use yaxpeax_x86::amd64::{InstDecoder, Opcode};

const BASE: u64 = 0x10_0000;
const LEN: u64 = 0x1_0000;

struct Machine {
    memory: GuestMemory,
    cpu: Cpu,
    regs: Regs,
}

fn machine() -> Machine {
    let mut memory = GuestMemory::new();
    memory.add(HostBlock::zeroed(Gpa(BASE), LEN)).unwrap();
    let segment = |selector, attributes| Segment { selector, base: 0, limit: !0, attributes };
    let state = X86State {
        gdt: (0x1000, 23),
        cr0: 0x8001_0021,
        cr3: 0x2000,
        cr4: 0x620,
        efer: 0x500,
        cs: segment(8, 0xa9b),
        data: segment(16, 0xc93),
        ..X86State::default()
    };
    let mut regs = Regs { rip: BASE, rflags: 0x202, ..Regs::default() };
    regs.gpr[Regs::RSP] = BASE + LEN;
    Machine { memory, cpu: Cpu::new(&state), regs }
}

impl Machine {
    fn run(&mut self, code: &[u8]) -> Step {
        self.memory.write_bytes(Gpa(BASE), code).unwrap();
        self.regs.rip = BASE;
        step(&mut self.cpu, &mut self.regs, &self.memory)
    }

    fn put(&self, at: u64, values: &[u64]) {
        for (i, value) in values.iter().enumerate() {
            self.memory.write_obj(Gpa(at + i as u64 * 8), value).unwrap();
        }
    }

    /// A GDT with the boot descriptors and a TSS, an IDT with one handler, a TSS with one IST.
    fn tables(&mut self) {
        let (gdt, idt, tss) = (BASE + 0x1000, BASE + 0x2000, BASE + 0x3000);
        let tss_low = 0x67 | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
        self.put(gdt, &[0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, tss_low, tss >> 32]);
        for vector in 0..48 {
            let (handler, ist) = (BASE + 0x4000 + vector * 16, u64::from(vector == 14));
            let gate = handler & 0xffff | 8 << 16 | ist << 32 | 0x8e << 40 | (handler >> 16) << 48;
            self.put(idt + vector * 16, &[gate, 0]);
        }
        self.memory.write_obj(Gpa(tss + 0x24), &(BASE + 0x8000)).unwrap();
        for (address, limit, code) in [(gdt, 39u16, 0x17), (idt, 767, 0x1f)] {
            let at = BASE + 0x100;
            self.memory.write_obj(Gpa(at), &limit).unwrap();
            self.memory.write_obj(Gpa(at + 2), &address).unwrap();
            self.regs.gpr[7] = at;
            assert_eq!(self.run(&[0x0f, 0x01, code]), Step::Done);
        }
        self.regs.gpr[0] = 0x18;
        assert_eq!(self.run(&[0x0f, 0x00, 0xd8]), Step::Done);
    }
}

#[test]
fn port_io_has_its_port_size_and_value() {
    let mut m = machine();
    m.regs.gpr[0] = 0xffff_ffff_1234_5678;
    m.regs.gpr[2] = 0xffff_0502;
    let io = |port, size, write| Step::Io { port, size, write };
    assert_eq!(m.run(&[0xef]), io(0x502, 4, Some(0x1234_5678)));
    assert_eq!(m.regs.rip, BASE + 1);
    assert_eq!(m.run(&[0x66, 0xef]), io(0x502, 2, Some(0x5678)));
    assert_eq!(m.run(&[0xee]), io(0x502, 1, Some(0x78)));
    assert_eq!(m.run(&[0xe7, 0x80]), io(0x80, 4, Some(0x1234_5678)));
    assert_eq!(m.run(&[0xe4, 0x60]), io(0x60, 1, None));
    assert_eq!(m.run(&[0xf3, 0x6e]), io(0x502, 1, Some(0)));
    assert_eq!(m.run(&[0x6f]), Step::Unsupported("outsd"));
    m.regs.set_port_answer(1, 0xaa);
    assert_eq!(m.regs.gpr[0], 0xffff_ffff_1234_56aa);
    m.regs.set_port_answer(4, 0xbb);
    assert_eq!(m.regs.gpr[0], 0xbb);
}

#[test]
fn segments_of_ring_0_load_and_others_fault() {
    let mut m = machine();
    m.regs.gpr[0] = 0x10;
    for code in [[0x8e, 0xd0], [0x8e, 0xd8], [0x8e, 0xc0]] {
        assert_eq!(m.run(&code), Step::Done);
    }
    for bad in [0x18, 0x28, 0x14, 0xfff8] {
        m.regs.gpr[0] = bad;
        let error = u32::try_from(bad & !7).unwrap();
        assert_eq!(m.run(&[0x8e, 0xd0]), Step::Raise(Vector::gp(error)), "{bad:#x}");
        assert_eq!(m.regs.rip, BASE);
    }
    m.regs.gpr[0] = 0x10;
    assert_eq!(m.run(&[0x8e, 0xc8]), Step::Raise(Vector::UD), "mov cs");
}

#[test]
fn far_return_and_iret_pop_what_they_should() {
    let mut m = machine();
    let sp = BASE + 0x5000;
    m.regs.gpr[Regs::RSP] = sp;
    m.put(sp, &[0x10_1234, 8]);
    assert_eq!(m.run(&[0x48, 0xcb]), Step::Done);
    assert_eq!((m.regs.rip, m.regs.gpr[Regs::RSP]), (0x10_1234, sp + 16));
    m.regs.gpr[Regs::RSP] = sp;
    m.put(sp, &[0x10_1234, 8, 0x2d7, 0x10_9000, 0x10]);
    assert_eq!(m.run(&[0x48, 0xcf]), Step::Done);
    assert_eq!((m.regs.rip, m.regs.gpr[Regs::RSP]), (0x10_1234, 0x10_9000));
    assert_eq!(m.regs.rflags & 0xd7, 0xd7);
    m.put(sp, &[0x10_1234, 0x10]);
    m.regs.gpr[Regs::RSP] = sp;
    assert_eq!(m.run(&[0x48, 0xcb]), Step::Raise(Vector::gp(0x10)), "data is not code");
    m.regs.gpr[Regs::RSP] = BASE + LEN - 8;
    assert!(matches!(m.run(&[0x48, 0xcb]), Step::Raise(Vector { number: 12, .. })));
}

#[test]
fn control_and_model_specific_registers() {
    let mut m = machine();
    m.regs.gpr[0] = 0x1234;
    assert_eq!(m.run(&[0x0f, 0x22, 0xd0]), Step::Done);
    assert_eq!(m.cpu.cr2, 0x1234);
    assert!(matches!(m.run(&[0x0f, 0x22, 0xd8]), Step::Unsupported(_)), "another CR3");
    for (register, bad) in
        [(0xe0, u64::MAX), (0xe0, 0x600), (0xe0, 0x1620), (0xc0, 0x21), (0xc0, 1 << 40)]
    {
        m.regs.gpr[0] = bad;
        assert_eq!(m.run(&[0x0f, 0x22, register]), Step::Raise(Vector::gp(0)), "{bad:#x}");
    }
    assert_eq!(m.run(&[0x41, 0x0f, 0x20, 0xdf]), Step::Done);
    assert_eq!(m.regs.gpr[15], 0x2000, "CR3 to R15");
    m.regs.gpr[1] = 0xc000_0100;
    m.regs.gpr[2] = 0xffff_8000;
    m.regs.gpr[0] = 7;
    assert_eq!(m.run(&[0x0f, 0x30]), Step::Done);
    assert_eq!(m.regs.fs_base, 0xffff_8000_0000_0007);
    m.regs.gpr[2] = 0x8000;
    assert_eq!(m.run(&[0x0f, 0x30]), Step::Raise(Vector::gp(0)), "not canonical");
    assert_eq!(m.run(&[0x0f, 0x32]), Step::Done);
    assert_eq!((m.regs.gpr[0], m.regs.gpr[2]), (7, 0xffff_8000));
    m.regs.gpr[1] = 0x1b;
    assert_eq!(m.run(&[0x0f, 0x32]), Step::Raise(Vector::gp(0)), "no such MSR here");
}

#[test]
fn an_exception_enters_its_handler_on_its_stack() {
    let mut m = machine();
    m.tables();
    m.regs.gpr[Regs::RSP] = BASE + 0x6008;
    m.regs.rip = 0x10_0777;
    let before = m.regs;
    assert_eq!(deliver(Vector::pf(2), &mut m.cpu, &mut m.regs, &m.memory), Ok(()));
    assert_eq!(m.regs.rip, BASE + 0x4000 + 14 * 16);
    assert_eq!(m.regs.gpr[Regs::RSP], BASE + 0x8000 - 48, "IST1, six slots");
    let slot = |n: u64| m.memory.read_obj::<u64>(Gpa(BASE + 0x8000 - 48 + n * 8)).unwrap();
    assert_eq!([slot(0), slot(1), slot(2)], [2, before.rip, 8]);
    assert_eq!([slot(4), slot(5)], [before.gpr[Regs::RSP], 16]);
    assert_eq!(slot(3) & 0x200, 0, "the guest's interrupts are off");

    m.regs = before;
    assert_eq!(deliver(Vector::UD, &mut m.cpu, &mut m.regs, &m.memory), Ok(()));
    assert_eq!(m.regs.gpr[Regs::RSP], BASE + 0x6000 - 40, "its own stack, aligned, five slots");
}

#[test]
fn without_a_usable_handler_the_cpu_shuts_down() {
    let mut m = machine();
    assert_eq!(deliver(Vector::UD, &mut m.cpu, &mut m.regs, &m.memory), Err(TripleFault));
    m.tables();
    // Vector 48 has no gate: a #GP says so.
    let odd = Vector { number: 48, error: None };
    assert_eq!(deliver(odd, &mut m.cpu, &mut m.regs, &m.memory), Ok(()));
    assert_eq!(m.regs.rip, BASE + 0x4000 + 13 * 16);
    m.regs.gpr[Regs::RSP] = 8;
    assert_eq!(deliver(Vector::UD, &mut m.cpu, &mut m.regs, &m.memory), Err(TripleFault));
}

/// What this decoder calls an instruction, in the other decoder's words.
fn same_meaning(op: Op, other: Opcode) -> bool {
    use Opcode as O;
    match op {
        Op::PortIo { write, .. } => other == if write { O::OUT } else { O::IN },
        Op::StringIo { write, .. } => other == if write { O::OUTS } else { O::INS },
        Op::Lgdt => other == O::LGDT,
        Op::Lidt => other == O::LIDT,
        Op::Ltr => other == O::LTR,
        Op::MovToSegment(_) | Op::MovToCr(_) | Op::MovFromCr(_) => other == O::MOV,
        Op::Wrmsr => other == O::WRMSR,
        Op::Rdmsr => other == O::RDMSR,
        Op::Cli => other == O::CLI,
        Op::Sti => other == O::STI,
        Op::Hlt => other == O::HLT,
        Op::Iretq => matches!(other, O::IRETQ | O::IRET),
        Op::LretQ(_) => other == O::RETF,
        Op::Int(_) => other == O::INT,
        Op::Nothing => {
            matches!(other, O::CLTS | O::INVLPG | O::INVD | O::WBINVD)
        }
        Op::Swapgs => other == O::SWAPGS,
        Op::Xsetbv => other == O::XSETBV,
        Op::Unsupported(_) => true,
    }
}

/// Bytes that begin like the instructions in question more often than chance would have it.
fn code() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop::sample::select(vec![0x66u8, 0x67, 0x64, 0x65, 0xf3, 0x41, 0x48, 0x4d, 0x44]);
    let opcode = prop_oneof![
        prop::sample::select(vec![
            0xe4u8, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef, 0x6c, 0x6f, 0xfa, 0xfb, 0xf4, 0xcd,
            0xcf, 0xcb, 0xca, 0x8e, 0xff
        ])
        .prop_map(|b| vec![b]),
        prop::sample::select(vec![0u8, 1, 6, 8, 9, 0x20, 0x22, 0x30, 0x32])
            .prop_map(|b| vec![0x0f, b]),
        any::<u8>().prop_map(|b| vec![b]),
    ];
    (prop::collection::vec(prefix, 0..3), opcode, prop::collection::vec(any::<u8>(), 0..14))
        .prop_map(|(a, b, c)| [a, b, c].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn decodes_as_another_decoder_does(code in code()) {
        if let Some(insn) = decode(&code)
            && let Ok(other) = InstDecoder::default().decode_slice(&code)
        {
            use yaxpeax_arch::LengthedInstruction;
            prop_assert!(same_meaning(insn.op, other.opcode()), "{insn:?} {other}");
            if !matches!(insn.op, Op::Unsupported(_)) {
                prop_assert_eq!(u64::from(insn.len.get()), other.len().to_const(), "{}", other);
            }
        }
    }

    #[test]
    fn no_code_and_no_state_makes_it_panic(
        code in code(),
        gpr in prop::array::uniform16(any::<u64>()),
        rip in prop_oneof![any::<u64>(), BASE..BASE + LEN],
        vector in any::<u8>(),
    ) {
        let mut m = machine();
        m.memory.write_bytes(Gpa(BASE), &code).unwrap();
        m.regs.gpr = gpr;
        for rip in [BASE, rip] {
            m.regs.rip = rip;
            let _ = step(&mut m.cpu, &mut m.regs, &m.memory);
            let vector = Vector { number: vector, error: None };
            let _ = deliver(vector, &mut m.cpu, &mut m.regs, &m.memory);
        }
    }
}
