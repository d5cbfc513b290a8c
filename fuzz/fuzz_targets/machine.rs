//! A hostile guest in a whole machine: its ports, addresses, registers, calls and halts, with time
//! passing and frames coming in between. The work that one exit leads to ends, deadlines do not
//! come faster than the host can serve them, nothing beside the guest's memory is written, its
//! firmware stays as it was, and a reset brings everything back that a guest can read.

#![no_main]

use arbitrary::Arbitrary;
use fuzz::machine::{Act, MEMORY, ROM, ROM_BYTE, Stage, VCPUS, Vm, build};
use fuzz::values::Word;
use hypervisor::memory::Gpa;
use hypervisor::modes::type1::apic::Requests;
use hypervisor::modes::type1::board::Verdict;
use hypervisor::modes::type1::layout::{COM1, ECAM, IO_APIC, LOCAL_APIC, PCI_WINDOW, PM1_EVENT};
use hypervisor::modes::type1::machine::Machine;
use hypervisor::modes::type1::processor::Processor;
use hypervisor::vcpu::{Ending, VcpuState, VmExit};
use hypervisor::vm::Accounts;
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// Steps of one run that are looked at.
const MOST: usize = 200;
/// What a reset loads anew.
const LOADED: std::ops::Range<u64> = 0..1 << 20;

#[derive(Debug, Arbitrary)]
enum Port {
    Known(u8),
    Virtual(u16),
}

/// The ports that somebody answers.
const PORTS: [u16; 40] = [
    0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71,
    0x92, 0xcf8, 0xcf9, 0xcfa, 0xcfc, 0xcfd, 0xcfe, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd,
    0x3fe, 0x3ff, 0x510, 0x511, 0x514, 0x518, 0x600, 0x602, 0x604, 0x608, 0x402, 0x60b,
];

const MSRS: [u32; 24] = [
    0x1b,
    0x6e0,
    0x11,
    0x12,
    0x4b56_4d00,
    0x4b56_4d01,
    0x4b56_4d04,
    0x1a0,
    0x200,
    0x20f,
    0x250,
    0x2ff,
    0x802,
    0x808,
    0x80b,
    0x80f,
    0x828,
    0x830,
    0x832,
    0x838,
    0x83e,
    0x83f,
    0xc001_0015,
    0x17,
];

#[derive(Debug, Arbitrary)]
enum Place {
    /// A register, and seldom an offset in it.
    Apic(u8, u8),
    IoApic(u8),
    Ecam(u32),
    /// Slot, page, offset in BAR 0; BAR 1 is behind.
    Bar(u8, u8, u8),
    Rom(u16),
    Any(Word),
}

#[derive(Debug, Arbitrary)]
enum Step {
    Io(Port, u8, Option<u32>),
    Memory(Word, Word),
    Mmio(Place, u8, Option<Word>),
    Config(u8, u8, u8, Option<Word>),
    Msr(u8, Option<Word>),
    AnyMsr(u32, Option<u64>),
    Call(u8, [Word; 4]),
    /// Sets a timer: which, how, for how long.
    Timer(u8, u8, u16),
    /// Enables BARs and gives a device a queue.
    Drive(u8, u8),
    Descriptor(u8, Word, u16, u8),
    Notify(u8, u8),
    Interrupts(bool),
    Cr8(u8),
    Compute(u8),
    Pass(Word),
    Frame,
    Type(u8),
    Button,
    Halt,
    TripleFault,
    /// The other vCPU goes on.
    Switch,
}

#[derive(Debug, Arbitrary)]
struct Input {
    firmware: bool,
    steps: Vec<Step>,
}

fn out(port: u16, size: u8, value: u32) -> VmExit {
    VmExit::Io { port, size, write: Some(value) }
}

fn input(port: u16, size: u8) -> VmExit {
    VmExit::Io { port, size, write: None }
}

fn load(gpa: u64, size: u8) -> VmExit {
    VmExit::Mmio { gpa: Gpa(gpa), size, write: None }
}

fn store(gpa: u64, size: u8, value: u64) -> VmExit {
    VmExit::Mmio { gpa: Gpa(gpa), size, write: Some(value) }
}

fn select(slot: u8, register: u8) -> VmExit {
    out(0xcf8, 4, 0x8000_0000 | u32::from(slot & 31) << 11 | u32::from(register & 0xfc))
}

/// Where a slot's BAR 0 is put; BAR 1 is behind it.
fn bar(slot: u8) -> u64 {
    PCI_WINDOW.start + (u64::from(slot & 3) << 16)
}

/// Shows the BARs of a slot.
fn show(slot: u8) -> [VmExit; 6] {
    let [low, high] = [bar(slot), bar(slot) + 0x4000].map(|at| (at & 0xffff_ffff) as u32);
    [
        select(slot, 0x10),
        out(0xcfc, 4, low),
        select(slot, 0x14),
        out(0xcfc, 4, high),
        select(slot, 4),
        out(0xcfc, 2, 6),
    ]
}

/// What a driver does before its first request.
fn drive(slot: u8, features: u8) -> Vec<VmExit> {
    let bar = bar(slot);
    let features = [u64::from(features & 3) << 28, 1];
    let mut exits = show(slot).to_vec();
    exits.push(store(bar + 0x14, 1, 3));
    for (half, features) in (0..).zip(features) {
        exits.extend([store(bar + 8, 4, half), store(bar + 0xc, 4, features)]);
    }
    exits.push(store(bar + 0x14, 1, 11));
    for queue in [0, 1] {
        exits.extend([store(bar + 0x16, 2, queue), store(bar + 0x18, 2, 8)]);
        for (register, at) in [(0x20, 0), (0x28, 0x400), (0x30, 0x800)] {
            exits.push(store(bar + register, 8, queues(slot, queue) + at));
        }
        exits.extend([store(bar + 0x1a, 2, queue), store(bar + 0x1c, 2, 1)]);
    }
    exits.push(store(bar + 0x14, 1, 15));
    exits
}

/// The local APIC's, the 8254's, or the clock's.
fn timer(which: u8, how: u8, count: u16) -> Vec<VmExit> {
    // Short ones more often than they would be.
    let count = count >> (how >> 4);
    let [low, high] = count.to_le_bytes().map(u32::from);
    let how_long = u32::from(how);
    match which % 3 {
        0 => vec![
            store(LOCAL_APIC.start + 0xf0, 4, 0x1ff),
            store(LOCAL_APIC.start + 0x3e0, 4, u64::from(how >> 2)),
            store(LOCAL_APIC.start + 0x320, 4, 0x41 | u64::from(how & 3) << 17),
            store(LOCAL_APIC.start + 0x380, 4, count.into()),
        ],
        1 => vec![out(0x43, 1, 0x30 | how_long & 0xf), out(0x40, 1, low), out(0x40, 1, high)],
        _ => [(0x0a, how_long), (0x0b, low), (0x0c, high)]
            .into_iter()
            .flat_map(|(index, value)| [out(0x70, 1, index), out(0x71, 1, value)])
            .collect(),
    }
}

fn queues(slot: u8, queue: u64) -> u64 {
    0x18_0000 + (u64::from(slot & 3) << 14) + (queue << 12)
}

/// Where an access goes.
fn place(at: &Place) -> u64 {
    match *at {
        Place::Apic(register, offset) => {
            let offset = if offset < 0xf0 { 0 } else { offset & 0xf };
            LOCAL_APIC.start + (u64::from(register) << 4 | u64::from(offset)) % 0x1000
        }
        Place::IoApic(offset) => IO_APIC.start + u64::from(offset),
        Place::Ecam(offset) => ECAM.start + u64::from(offset & 0x1f_ffff),
        Place::Bar(slot, page, offset) => {
            bar(slot % 3) + (u64::from(page % 5) << 12) + u64::from(offset)
        }
        Place::Rom(offset) => ROM.start + u64::from(offset),
        Place::Any(word) => near_edge(&word),
    }
}

/// A number, near an edge of RAM or of the firmware.
fn near_edge(word: &Word) -> u64 {
    match word {
        Word::FromStart(offset) | Word::FromEnd(offset) if *offset & 16 != 0 => {
            word.get(ROM.start, ROM.end)
        }
        _ => word.get(0, MEMORY),
    }
}

/// Whether there is memory, so that no access leaves the guest.
fn is_memory(gpa: u64, write: bool, firmware: bool) -> bool {
    gpa < MEMORY || firmware && !write && ROM.contains(&gpa)
}

fn acts(step: &Step, firmware: bool, to: &mut VecDeque<Act>) {
    let mut exit = |exit| to.push_back(Act::Exit(exit));
    match step {
        Step::Io(port, size, write) => {
            let port = match port {
                Port::Known(index) => PORTS[usize::from(*index) % PORTS.len()],
                Port::Virtual(port) => *port,
            };
            let size = [1, 2, 4][usize::from(size % 3)];
            let bits = u32::MAX >> (32 - 8 * u32::from(size));
            exit(VmExit::Io { port, size, write: write.map(|value| value & bits) });
        }
        Step::Mmio(at, size, write) => {
            let gpa = place(at);
            let size = 1 + size % 8;
            if !is_memory(gpa, write.is_some(), firmware) {
                let write = write.as_ref().map(near_edge);
                exit(VmExit::Mmio { gpa: Gpa(gpa), size, write });
            }
        }
        Step::Config(slot, register, size, write) => {
            exit(select(slot % 4 * (1 + slot / 128 * 9), *register));
            let (port, size) = (0xcfc + u16::from(register & 3), [1, 2, 4][usize::from(size % 3)]);
            let write = write.as_ref().map(|word| near_edge(word) as u32);
            exit(VmExit::Io { port, size, write });
        }
        Step::Msr(index, write) => {
            let index = MSRS[usize::from(*index) % MSRS.len()];
            exit(match write {
                Some(word) => VmExit::WriteMsr { index, value: near_edge(word) },
                None => VmExit::ReadMsr { index },
            });
        }
        Step::AnyMsr(index, Some(value)) => {
            exit(VmExit::WriteMsr { index: *index, value: *value });
        }
        Step::AnyMsr(index, None) => exit(VmExit::ReadMsr { index: *index }),
        Step::Call(number, arguments) => {
            let arguments = arguments.each_ref().map(near_edge);
            exit(VmExit::Hypercall { number: u64::from(number % 12), arguments });
        }
        Step::Timer(which, how, count) => timer(*which, *how, *count).into_iter().for_each(exit),
        Step::Drive(slot, features) => drive(1 + slot % 2, *features).into_iter().for_each(exit),
        Step::Notify(slot, queue) => {
            exit(store(bar(1 + slot % 2) + 0x3000 + u64::from(queue % 3) * 4, 2, 0));
        }
        Step::Halt => exit(VmExit::Halt),
        Step::TripleFault => exit(VmExit::Shutdown { rip: None }),
        Step::Memory(at, value) => {
            to.push_back(Act::Memory(near_edge(at), near_edge(value)));
        }
        Step::Descriptor(at, address, len, flags) => {
            let base = queues(1 + at / 128, u64::from(at / 64 % 2)) + u64::from(at % 8) * 16;
            let rest = u64::from(*len) | u64::from(flags & 7) << 32 | u64::from(at % 9) << 48;
            to.push_back(Act::Memory(base, near_edge(address)));
            to.push_back(Act::Memory(base + 8, rest));
            // One more chain is available.
            let ring = queues(1 + at / 128, u64::from(at / 64 % 2)) + 0x400;
            to.push_back(Act::Memory(ring, u64::from(1 + flags / 8 % 9) << 16));
        }
        Step::Interrupts(on) => to.push_back(Act::Interrupts(*on)),
        Step::Cr8(value) => to.push_back(Act::Cr8(*value)),
        Step::Compute(times) => to.push_back(Act::Compute((*times).into())),
        Step::Pass(word) => to.push_back(Act::Pass(near_edge(word) % (1 << 50))),
        Step::Frame => to.push_back(Act::Frame),
        Step::Type(byte) => to.push_back(Act::Type(*byte)),
        Step::Button | Step::Switch => {}
    }
}

/// Everything that reads alike after each reset.
fn look(firmware: bool) -> VecDeque<Act> {
    let mut acts = VecDeque::new();
    let mut exit = |exit| acts.push_back(Act::Exit(exit));
    if firmware {
        exit(out(0x510, 2, 0));
    }
    let mut note = |exit| acts.push_back(Act::Note(exit));
    note(input(0xcf8, 4));
    for port in [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x60, 0x64, 0x92, 0xcf9] {
        note(input(port, 1));
    }
    for port in [0, 2, 4] {
        note(input(PM1_EVENT + port, 2));
    }
    for register in [1, 3, 4, 6, 7] {
        note(input(COM1 + register, 1));
    }
    for index in [0x1b, 0x1a0, 0x2ff, 0x6e0, 0x11, 0x12, 0x4b56_4d04, 0x803] {
        note(VmExit::ReadMsr { index });
    }
    (0x200..0x210).for_each(|index| note(VmExit::ReadMsr { index }));
    for register in (0..0x40).filter(|register| *register != 0x28) {
        note(load(LOCAL_APIC.start + register * 16, 4));
    }
    for register in 0..4 {
        note(load(ECAM.start + register * 4, 4));
        note(load(bar(1) + register * 4, 4));
    }
    note(load(IO_APIC.start, 4));
    if firmware {
        note(input(0x511, 4));
    }
    acts.push_back(Act::NoteBits(input(0x61, 1), !0x10));
    for entry in 0..0x40 {
        acts.push_back(Act::Exit(store(IO_APIC.start, 4, entry)));
        acts.push_back(Act::Note(load(IO_APIC.start + 0x10, 4)));
    }
    for slot in [0, 1, 2, 31] {
        for register in (0..=0xfc).step_by(4) {
            acts.push_back(Act::Exit(select(slot, register)));
            acts.push_back(Act::Note(input(0xcfc, 4)));
        }
    }
    for slot in [1, 2] {
        acts.extend(show(slot).map(Act::Exit));
        for queue in [0, 1] {
            acts.push_back(Act::Exit(store(bar(slot) + 0x16, 2, queue)));
            let common = (0..0x38).step_by(4).map(|at| load(bar(slot) + at, 4));
            acts.extend(common.map(Act::Note));
        }
        for offset in [0x1000, 0x2000, 0x2004, 0x4000, 0x400c, 0x401c, 0x4800] {
            acts.push_back(Act::Note(load(bar(slot) + offset, 4)));
        }
    }
    acts
}

/// What a guest can read after a reset, and what is loaded.
#[derive(PartialEq)]
struct Fresh {
    notes: Vec<Option<u64>>,
    state: Option<VcpuState>,
    loaded: Vec<u64>,
}

/// A machine with its processors, as the target drives it.
struct Bench {
    firmware: bool,
    stage: Arc<Stage>,
    machine: Arc<Machine<Vm>>,
    processors: Vec<Processor<Vm>>,
    accounts: Accounts,
    runs: u64,
}

impl Bench {
    fn new(firmware: bool) -> Self {
        let stage = Stage::new();
        let (machine, processors) = build(&stage, firmware);
        stage.plug(&machine.board);
        Self { firmware, stage, machine, processors, accounts: Accounts::default(), runs: 0 }
    }

    /// One vCPU goes on until it has nothing more to do.
    fn run(&mut self, vcpu: usize) -> Ending {
        let ending = self.processors[vcpu].run(&self.accounts).expect("the backend does not fail");
        // The machine goes on as it is, however its run has ended.
        self.runs += 1;
        self.machine.board.power.start(self.runs);
        self.machine.board.power.reset_done();
        if let Ending::Fault(line) = &ending {
            panic!("the machine ended: {line}");
        }
        ending
    }

    /// Resets the machine and looks at it.
    fn reset(&mut self) -> Fresh {
        *self.stage.acts() = look(self.firmware);
        self.machine.board.power.ask(Verdict::Reset);
        assert_eq!(self.run(0), Ending::Interrupted, "the queue is empty");
        let notes = std::mem::take(&mut *self.stage.notes.lock().expect("one thread"));
        let state = self.stage.states.lock().expect("one thread")[0];
        Fresh { notes, state, loaded: self.machine.vm.words(LOADED).to_vec() }
    }

    /// Does some steps; they end where the vCPU is to change.
    fn go(&mut self, steps: &[Step], vcpu: usize) {
        for step in steps {
            match step {
                Step::Button => self.machine.press_power_button(),
                step => acts(step, self.firmware, &mut self.stage.acts()),
            }
        }
        let ending = self.run(vcpu);
        if self.stage.is_stuck() {
            self.machine.bus.inboxes()[vcpu].ask(Requests::NMI);
        }
        // One that was turned off is turned on again.
        if ending != Ending::Interrupted {
            self.machine.board.power.ask(Verdict::Reset);
        }
    }
}

/// A machine in which nobody has done anything.
fn untouched(firmware: bool) -> &'static Fresh {
    static FRESH: [OnceLock<Fresh>; 2] = [const { OnceLock::new() }; 2];
    FRESH[usize::from(firmware)].get_or_init(|| Bench::new(firmware).reset())
}

fuzz_target!(|input: Input| {
    let mut bench = Bench::new(input.firmware);
    let steps = &input.steps[..input.steps.len().min(MOST)];
    let turns = steps.split(|step| matches!(step, Step::Switch));
    turns.zip((0..VCPUS as usize).cycle()).for_each(|(steps, vcpu)| bench.go(steps, vcpu));
    assert!(bench.machine.vm.is_unharmed());
    let (before, after) = (untouched(input.firmware), bench.reset());
    for (index, (before, after)) in before.notes.iter().zip(&after.notes).enumerate() {
        assert_eq!(before, after, "note {index} after a reset");
    }
    assert!(*before == after, "what is loaded, or the first vCPU's state");
    if input.firmware {
        let byte = u64::from_le_bytes([ROM_BYTE; 8]);
        assert!(bench.machine.vm.words(ROM).iter().all(|word| *word == byte));
    }
});
