//! A whole Type 1 machine, one step after the other in one thread: its vCPUs take what they do from
//! a queue, its clock stands until somebody waits for it, its host gives what the others here give.
//!
//! Order: [`Stage::new`], [`build`], [`Stage::plug`]; then, as often as wanted, fill the queue and
//! let one [`Processor`] run. It comes back when the queue is empty, the machine has ended, or
//! nothing could wake it any more ([`Stage::is_stuck`]).

use crate::host;
use hypervisor::config::{Type1Config, Type1Console};
use hypervisor::host::{Blob, BlockStore, Clock, HostError, NetPort, Notices};
use hypervisor::memory::{Gpa, GuestMemory, HostBlock, Perms};
use hypervisor::modes::type1::board::{Board, Verdict};
use hypervisor::modes::type1::boot::state::reset as after_reset;
use hypervisor::modes::type1::cpuid::{Place, policy};
use hypervisor::modes::type1::devices::SerialInput;
use hypervisor::modes::type1::host::{
    Arrival, ConsoleInput, Lent, Type1Host, Type1Session, VcpuThread,
};
use hypervisor::modes::type1::machine::{Devices, Loader, Machine, Plan};
use hypervisor::modes::type1::processor::Processor;
use hypervisor::modes::type1::slots::NetLink;
use hypervisor::vcpu::machine::{CpuidEntry, Event, MachineVcpu, MachineVm};
use hypervisor::vcpu::{
    BackendError, BackendVcpu, BackendVm, ExitHandler, VcpuState, VmEntry, VmExit,
};
use hypervisor::vm::VmId;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

/// vCPUs of every machine.
pub const VCPUS: u32 = 2;
/// RAM in bytes.
pub const MEMORY: u64 = 2 << 20;
/// Where the firmware is, in machines that have one.
pub const ROM: Range<u64> = (1 << 32) - ROM_SIZE..1 << 32;
const ROM_SIZE: u64 = 64 << 10;
/// What the firmware is filled with.
pub const ROM_BYTE: u8 = 0xf4;
/// What is around the guest's memory in the host's.
const GUARD: u64 = 0xa5a5_5a5a_a5a5_5a5a;
const GUARD_WORDS: usize = 512;
const FREQUENCY: u64 = 2_000_000_000;
/// Nanoseconds at the beginning.
const BEGIN: u64 = 1_000_000_000;
/// Looks at the clock, and waits, that one exit may lead to: what is more has no bound.
const MOST_LOOKS: u32 = 50_000;
/// Times in a row that a vCPU may be left or woken at a deadline, and what must have passed then.
const DEADLINES: u32 = 64;
const PASSED: u64 = 300_000;

/// What a vCPU does next.
#[derive(Debug, Clone)]
pub enum Act {
    /// Leaves its guest.
    Exit(VmExit),
    /// The same; the answer is noted.
    Note(VmExit),
    /// The same; of the answer these bits are.
    NoteBits(VmExit, u64),
    /// Lets interrupts in, or not.
    Interrupts(bool),
    /// Writes CR8.
    Cr8(u8),
    /// Writes to its memory.
    Memory(u64, u64),
    /// Computes until so many deadlines have come, or anything else ends that.
    Compute(u32),
    /// Time passes.
    Pass(u64),
    /// A frame has arrived.
    Frame,
    /// Somebody types.
    Type(u8),
}

/// What vCPUs, host and target share.
pub struct Stage {
    acts: Mutex<VecDeque<Act>>,
    /// Answers that were to be noted.
    pub notes: Mutex<Vec<Option<u64>>>,
    now: AtomicU64,
    looks: AtomicU32,
    /// Deadlines that came since a guest did anything, and when that was.
    deadlines: AtomicU32,
    since: AtomicU64,
    stuck: AtomicBool,
    waits: AtomicU32,
    board: OnceLock<Weak<Board>>,
    arrived: OnceLock<Arc<NetLink>>,
    input: OnceLock<Arc<SerialInput>>,
    /// The state of the last reset of each vCPU.
    pub states: Mutex<[Option<VcpuState>; VCPUS as usize]>,
}

impl Stage {
    /// With nothing on it.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            acts: Mutex::default(),
            notes: Mutex::default(),
            now: AtomicU64::new(BEGIN),
            looks: AtomicU32::new(0),
            deadlines: AtomicU32::new(0),
            since: AtomicU64::new(BEGIN),
            stuck: AtomicBool::new(false),
            waits: AtomicU32::new(0),
            board: OnceLock::new(),
            arrived: OnceLock::new(),
            input: OnceLock::new(),
            states: Mutex::default(),
        })
    }

    /// The machine is there.
    pub fn plug(&self, board: &Arc<Board>) {
        let _ = self.board.set(Arc::downgrade(board));
    }

    /// The queue.
    pub fn acts(&self) -> MutexGuard<'_, VecDeque<Act>> {
        self.acts.lock().expect("one thread")
    }

    /// Whether the vCPU that ran last waits for what nobody will give it.
    pub fn is_stuck(&self) -> bool {
        self.stuck.swap(false, Relaxed)
    }

    /// A guest has done something.
    fn moved(&self) {
        self.looks.store(0, Relaxed);
        self.deadlines.store(0, Relaxed);
        self.waits.store(0, Relaxed);
        self.since.store(self.now.load(Relaxed), Relaxed);
    }

    /// A deadline has come, for which somebody has waited.
    fn reach(&self, at: u64) {
        let now = self.now.fetch_max(at, Relaxed).max(at);
        if self.deadlines.fetch_add(1, Relaxed) + 1 == DEADLINES {
            let passed = now - self.since.load(Relaxed);
            assert!(passed >= PASSED, "{DEADLINES} deadlines in {passed} ns: the host spins");
            self.deadlines.store(0, Relaxed);
            self.since.store(now, Relaxed);
        }
    }

    /// A vCPU has waited, or was left for work that is left. So many times in a row it may; then the
    /// guest is given up: it may halt for ever while its timers run, or have made endless work.
    fn wait(&self) {
        const PATIENCE: u32 = 1_000;
        self.looks.store(0, Relaxed);
        if self.waits.fetch_add(1, Relaxed) >= PATIENCE {
            self.stuck.store(true, Relaxed);
            self.leave();
        }
    }

    /// The vCPU comes back to the target.
    fn leave(&self) {
        if let Some(board) = self.board.get().and_then(Weak::upgrade) {
            board.power.ask(Verdict::Stop);
        }
    }
}

impl Clock for Stage {
    fn wall_ns(&self) -> u64 {
        1_700_000_000_000_000_000 + self.monotonic_ns()
    }

    fn monotonic_ns(&self) -> u64 {
        let looks = self.looks.fetch_add(1, Relaxed);
        assert!(looks < MOST_LOOKS, "one exit leads to {looks} looks at the clock: no end of it");
        // A clock that stands would hide loops that wait for it.
        self.now.fetch_add(1, Relaxed)
    }
}

/// A vCPU's thread, which is the only one.
struct Thread {
    kicked: AtomicBool,
    stage: Arc<Stage>,
}

impl VcpuThread for Thread {
    fn enter(&self) {}
    fn leave(&self) {}

    fn park(&self, until: Option<u64>) {
        match until {
            _ if self.kicked.swap(false, Relaxed) => {}
            // Only to give way: a driver can make work that never ends.
            Some(0) => self.stage.wait(),
            Some(at) => {
                self.stage.reach(at);
                self.stage.wait();
            }
            None => {
                self.stage.stuck.store(true, Relaxed);
                self.stage.leave();
            }
        }
    }

    fn kick(&self) {
        self.kicked.store(true, Relaxed);
    }
}

/// The VM.
pub struct Vm {
    memory: GuestMemory,
    /// Each range of addresses, and what backs it between two guards.
    blocks: Vec<(u64, Arc<Vec<u64>>)>,
    stage: Arc<Stage>,
    threads: Vec<Arc<Thread>>,
}

impl Vm {
    fn new(ranges: &[Range<u64>], stage: &Arc<Stage>, threads: &[Arc<Thread>]) -> Self {
        let (mut memory, mut blocks) = (GuestMemory::new(), Vec::new());
        for range in ranges {
            let len = range.end - range.start;
            let words = (len / 8) as usize;
            let mut block = vec![0u64; words + 2 * GUARD_WORDS];
            block[..GUARD_WORDS].fill(GUARD);
            block[GUARD_WORDS + words..].fill(GUARD);
            let host = block[GUARD_WORDS..].as_mut_ptr().cast();
            let block = Arc::new(block);
            // SAFETY: the bytes live as long as their owner and are not touched otherwise.
            let host = unsafe { HostBlock::new(Gpa(range.start), len, host, block.clone()) };
            memory.add(host).expect("disjoint ranges");
            blocks.push((range.start, block));
        }
        let (stage, threads) = (stage.clone(), threads.to_vec());
        Self { memory, blocks, stage, threads }
    }

    /// Whether nothing beside the guest's memory has been written.
    pub fn is_unharmed(&self) -> bool {
        let guards = |(_, block): &(u64, Arc<Vec<u64>>)| {
            let end = block.len() - GUARD_WORDS;
            block[..GUARD_WORDS].iter().chain(&block[end..]).all(|word| *word == GUARD)
        };
        self.blocks.iter().all(guards)
    }

    /// What is in memory, 8 bytes at a time, whatever the guest may do with it. Nobody writes there
    /// meanwhile: this is the only thread.
    pub fn words(&self, range: Range<u64>) -> &[u64] {
        let of = |(start, _): &&(u64, Arc<Vec<u64>>)| *start <= range.start;
        let (start, block) = self.blocks.iter().rfind(of).expect("memory");
        let from = GUARD_WORDS + ((range.start - start) / 8) as usize;
        &block[from..from + ((range.end - range.start) / 8) as usize]
    }
}

impl BackendVm for Vm {
    type Vcpu = Vcpu;

    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        &mut self.memory
    }

    fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), BackendError> {
        Ok(self.memory.protect(range, perms)?)
    }

    fn cycle_frequency(&self) -> Result<u64, BackendError> {
        Ok(FREQUENCY)
    }

    fn create_vcpu(
        &self,
        state: VcpuState,
        handler: Arc<dyn ExitHandler>,
    ) -> Result<Vcpu, BackendError> {
        self.create_machine_vcpu(0, &[], state, handler)
    }
}

impl MachineVm for Vm {
    fn create_machine_vcpu(
        &self,
        index: u32,
        _: &[CpuidEntry],
        state: VcpuState,
        _: Arc<dyn ExitHandler>,
    ) -> Result<Vcpu, BackendError> {
        let (stage, memory) = (self.stage.clone(), self.memory.clone());
        let thread = self.threads[index as usize].clone();
        stage.states.lock().expect("one thread")[index as usize] = Some(state);
        Ok(Vcpu { index, stage, memory, thread, ..Vcpu::at_reset() })
    }
}

/// A vCPU.
pub struct Vcpu {
    index: u32,
    stage: Arc<Stage>,
    memory: GuestMemory,
    thread: Arc<Thread>,
    interruptible: bool,
    pending: bool,
    window: bool,
    cr8: u8,
    deadline: Option<u64>,
    computes: u32,
    /// The answer to the last exit is to be noted: these bits of it.
    noted: Option<u64>,
}

impl Vcpu {
    fn at_reset() -> Self {
        let stage = Stage::new();
        Self {
            index: 0,
            memory: GuestMemory::new(),
            thread: Arc::new(Thread { kicked: AtomicBool::new(false), stage: stage.clone() }),
            stage,
            interruptible: false,
            pending: false,
            window: false,
            cr8: 0,
            deadline: None,
            computes: 0,
            noted: None,
        }
    }

    /// What the next act leaves the guest for, if it does.
    fn act(&mut self, act: Act) -> Option<VmExit> {
        match act {
            Act::Exit(exit) => return Some(exit),
            Act::Note(exit) => {
                self.noted = Some(u64::MAX);
                return Some(exit);
            }
            Act::NoteBits(exit, bits) => {
                self.noted = Some(bits);
                return Some(exit);
            }
            Act::Interrupts(on) => self.interruptible = on,
            Act::Cr8(value) => self.cr8 = value & 15,
            Act::Memory(at, value) => drop(self.memory.write_obj(Gpa(at), &value)),
            Act::Compute(deadlines) => self.computes = deadlines,
            Act::Pass(ns) => drop(self.stage.now.fetch_add(ns, Relaxed)),
            Act::Frame => self.stage.arrived.get().into_iter().for_each(|link| link.arrived()),
            Act::Type(byte) => {
                let _ = self.stage.input.get().map(|input| input.type_in(&[byte]));
            }
        }
        None
    }
}

impl BackendVcpu for Vcpu {
    fn run(&mut self, entry: VmEntry) -> Result<VmExit, BackendError> {
        if let Some(bits) = self.noted.take() {
            let answer = if let VmEntry::Data(value) = entry { Some(value & bits) } else { None };
            self.stage.notes.lock().expect("one thread").push(answer);
        }
        self.pending = false;
        loop {
            if self.thread.kicked.swap(false, Relaxed) {
                return Ok(VmExit::Interrupted);
            }
            if self.window && self.interruptible() {
                return Ok(VmExit::InterruptWindow);
            }
            if let Some(at) = self.deadline.filter(|at| *at <= self.stage.now.load(Relaxed)) {
                if at > 0 {
                    self.stage.reach(at)
                } else {
                    self.stage.wait()
                }
                return Ok(VmExit::Interrupted);
            }
            if self.computes > 0 {
                self.computes -= 1;
                let Some(at) = self.deadline else {
                    self.computes = 0;
                    continue;
                };
                self.stage.reach(at);
                return Ok(VmExit::Interrupted);
            }
            let Some(act) = self.stage.acts().pop_front() else {
                self.stage.leave();
                return Ok(VmExit::Interrupted);
            };
            self.stage.moved();
            if let Some(exit) = self.act(act) {
                return Ok(exit);
            }
        }
    }
}

impl MachineVcpu for Vcpu {
    fn interruptible(&self) -> bool {
        self.interruptible && !self.pending
    }

    fn inject(&mut self, event: Event) {
        let interrupt = matches!(event, Event::Interrupt { .. });
        assert!(!interrupt || self.interruptible(), "an interrupt that the guest cannot take");
        self.pending |= interrupt;
    }

    fn request_window(&mut self, wanted: bool) {
        self.window = wanted;
    }

    fn task_priority(&self) -> u8 {
        self.cr8 << 4
    }

    fn set_task_priority(&mut self, priority: u8) {
        self.cr8 = priority >> 4;
    }

    fn set_deadline(&mut self, monotonic_ns: Option<u64>) {
        self.deadline = monotonic_ns;
    }

    fn cycles(&self) -> u64 {
        (self.stage.now.load(Relaxed) - BEGIN).wrapping_mul(FREQUENCY / 1_000_000_000)
    }

    fn reset(&mut self, state: &VcpuState) -> Result<(), BackendError> {
        self.stage.states.lock().expect("one thread")[self.index as usize] = Some(*state);
        let (stage, memory) = (self.stage.clone(), self.memory.clone());
        let (index, thread, deadline) = (self.index, self.thread.clone(), self.deadline);
        *self = Self { index, stage, memory, thread, deadline, ..Self::at_reset() };
        Ok(())
    }
}

/// The host.
struct Host(Arc<Stage>);

struct Nowhere;

impl Notices for Nowhere {
    fn notice(&self, text: std::fmt::Arguments<'_>) {
        assert!(!text.to_string().is_empty());
    }
}

impl Type1Host for Host {
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, HostError> {
        Ok(Box::new(match path {
            "firmware" => vec![ROM_BYTE; ROM_SIZE as usize],
            _ => kernel(),
        }))
    }

    fn session(&self, _: VmId, _: &str) -> Result<Box<dyn Type1Session>, HostError> {
        Ok(Box::new(Host(self.0.clone())))
    }
}

impl Type1Session for Host {
    fn disk(&mut self, _: &str, _: bool) -> Result<Box<dyn BlockStore>, HostError> {
        Ok(host::disk())
    }

    fn net(
        &mut self,
        _: u32,
        _: Option<&str>,
        _: Option<[u8; 6]>,
        _: Arc<dyn Arrival>,
    ) -> Result<Box<dyn NetPort>, HostError> {
        Ok(host::net())
    }

    fn lend(&mut self, _: u32, _: Arc<dyn ConsoleInput>) -> Result<Lent, HostError> {
        Err(HostError::new(hypervisor::host::HostErrorKind::Other, "lent already"))
    }
}

/// A machine with a disk in slot 1 and a network in slot 2, loaded and ready, and its processors.
pub fn build(stage: &Arc<Stage>, firmware: bool) -> (Arc<Machine<Vm>>, Vec<Processor<Vm>>) {
    let config = Type1Config {
        firmware: firmware.then(|| "firmware".into()),
        debug: true,
        ..Type1Config::default()
    };
    let host = Host(stage.clone());
    let kernel = (!firmware).then(|| "kernel".into());
    let loader = Loader::new(&host, &config, kernel, (MEMORY, VCPUS, 40)).expect("a good kernel");
    let threads: Vec<_> = (0..VCPUS)
        .map(|_| Arc::new(Thread { kicked: AtomicBool::new(false), stage: stage.clone() }))
        .collect();
    let mut vm = Vm::new(&loader.ranges(), stage, &threads);
    loader.load_rom(vm.memory()).expect("there is room");
    if let Some(range) = loader.read_only() {
        vm.protect(range, Perms::READ | Perms::EXEC).expect("it is memory");
    }
    let (link, input) = (Arc::new(NetLink::default()), Arc::new(SerialInput::default()));
    let lent = Lent {
        console: host::console(),
        notices: Arc::new(Nowhere),
        clock: stage.clone(),
        vcpus: threads.iter().map(|thread| thread.clone() as Arc<dyn VcpuThread>).collect(),
    };
    let devices =
        Devices { disks: vec![(host::disk(), false)], nets: vec![(host::net(), link.clone())] };
    let _ = (stage.arrived.set(link), stage.input.set(input.clone()));
    let plan = Plan {
        vm,
        session: Box::new(host),
        lent,
        input,
        devices,
        loader,
        signature: 0x663,
        address_bits: 40,
        console: Type1Console::Serial,
        debug: true,
    };
    let machine = Arc::new(Machine::new(plan).expect("parts that fit"));
    machine.load().expect("a good kernel");
    let processors = (0..VCPUS).map(|index| processor(&machine, index)).collect();
    (machine, processors)
}

fn processor(machine: &Arc<Machine<Vm>>, index: u32) -> Processor<Vm> {
    let all = [CpuidEntry { leaf: 1, subleaf: None, registers: [0x663, 0, 0, 0] }];
    let rows = policy(&all, Place { index, count: VCPUS, frequency: machine.frequency });
    let idle = VcpuState::X86(after_reset(machine.signature));
    let state = if index == 0 { machine.start().expect("it is loaded") } else { idle };
    let vcpu = machine.vm.create_machine_vcpu(index, &rows, state, Arc::new(Nobody));
    Processor::new(machine.clone(), index, vcpu.expect("a thread for it")).expect("an inbox")
}

struct Nobody;

impl ExitHandler for Nobody {
    fn handle(&self, _: VmExit, _: &GuestMemory) -> hypervisor::vcpu::Answer {
        unreachable!("the loop answers")
    }
}

/// A kernel that can be started by PVH and is never looked at further.
fn kernel() -> Vec<u8> {
    let note: Vec<u8> = [4u32, 4, 18].map(u32::to_le_bytes).concat();
    let note = [note, b"Xen\0".to_vec(), 0x10_0000u32.to_le_bytes().to_vec()].concat();
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([0x10_0000u64, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 2, 0, 0, 0].map(u16::to_le_bytes).concat());
    let (at, size) = (64 + 2 * 56, note.len() as u64);
    for (kind, flags) in [(1u32, 5u32), (4, 4)] {
        file.extend([kind, flags].map(u32::to_le_bytes).concat());
        file.extend([at, 0x10_0000, 0x10_0000, size, size, 4].map(u64::to_le_bytes).concat());
    }
    file.extend(note);
    file
}
