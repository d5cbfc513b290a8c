//! For tests: a backend whose guests are Rust functions, a host whose clock jumps, and a machine
//! of the two.
//!
//! A guest is a thread of its own that does one thing after the other; each of its accesses is an
//! exit, and it goes on when the vCPU is entered again. Interrupts that are injected are noted in
//! the order in which the guest takes them.

#![allow(unsafe_code)]

use super::host::{Arrival, ConsoleInput, Lent, Type1Host, Type1Session, VcpuThread};
use crate::host::{Blob, BlockStore, Clock, Console, HostError, HostErrorKind, NetPort, Notices};
use crate::memory::{Gpa, GuestMemory, GuestSlice, HostBlock, Perms};
use crate::vcpu::machine::tsc::{HostTsc, Rate};
use crate::vcpu::machine::{
    CpuidEntry, Event, MachineBackend, MachineSpec, MachineVcpu, MachineVm,
};
use crate::vcpu::{
    Backend, BackendCaps, BackendError, BackendVcpu, BackendVm, ExitHandler, VcpuState, VmEntry,
    VmExit, VmSpec,
};
use crate::vm::VmId;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex};
use std::thread;

/// Frequency of the TSC of guests that ask for none: 2 GHz.
pub const FREQUENCY: u64 = 2_000_000_000;
/// When the clock starts, in nanoseconds.
pub const BEGIN: u64 = 1_000_000_000;
/// What the wall clock says then.
pub const WALL: u64 = 1_700_000_000_000_000_000;

/// A clock that jumps to whatever is waited for.
pub struct JumpingClock(pub AtomicU64);

impl JumpingClock {
    /// Goes on to a moment.
    pub fn to(&self, ns: u64) {
        self.0.fetch_max(ns, Ordering::SeqCst);
    }
}

impl Clock for JumpingClock {
    fn wall_ns(&self) -> u64 {
        WALL + self.monotonic_ns() - BEGIN
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A clock at its beginning.
pub fn clock() -> Arc<JumpingClock> {
    Arc::new(JumpingClock(AtomicU64::new(BEGIN)))
}

/// A vCPU's thread: a kick that is remembered.
pub struct Bell {
    kicked: Mutex<bool>,
    rung: Condvar,
    clock: Arc<JumpingClock>,
}

impl Bell {
    /// Of this clock.
    pub fn new(clock: Arc<JumpingClock>) -> Arc<Self> {
        Arc::new(Self { kicked: Mutex::new(false), rung: Condvar::new(), clock })
    }

    fn take(&self) -> bool {
        core::mem::take(&mut self.kicked.lock().unwrap())
    }
}

impl VcpuThread for Bell {
    fn enter(&self) {}
    fn leave(&self) {}

    fn park(&self, until: Option<u64>) {
        let kicked = self.kicked.lock().unwrap();
        if let Some(at) = until {
            if !*kicked {
                self.clock.to(at);
            }
            drop(kicked);
            // Others may want to run before time jumps again.
            thread::yield_now();
        } else {
            drop(self.rung.wait_while(kicked, |kicked| !*kicked).unwrap());
        }
        self.take();
    }

    fn kick(&self) {
        *self.kicked.lock().unwrap() = true;
        self.rung.notify_all();
    }
}

/// What a guest does next.
enum Did {
    Exit(VmExit),
    /// It computes until it is interrupted or takes an event.
    Spin,
    /// It is over: it computes for ever.
    Over,
}

struct Resume {
    entry: VmEntry,
    events: Vec<Event>,
}

/// A guest's view of its vCPU.
pub struct Cpu {
    did: Sender<Did>,
    resume: Receiver<Resume>,
    flags: Arc<Flags>,
    /// The events that it has taken.
    pub events: Vec<Event>,
    /// The state in which it was started.
    pub state: VcpuState,
    memory: Arc<GuestMemory>,
}

#[derive(Default)]
struct Flags {
    interruptible: AtomicBool,
    cr8: AtomicU64,
    apic_hidden: AtomicBool,
}

/// The vCPU is gone.
struct Gone;

impl Cpu {
    fn go(&mut self, did: Did) -> VmEntry {
        let resume = self.did.send(did).ok().and_then(|()| self.resume.recv().ok());
        let Some(resume) = resume else { std::panic::resume_unwind(Box::new(Gone)) };
        self.events.extend(resume.events);
        resume.entry
    }

    fn value(&mut self, exit: VmExit) -> u64 {
        match self.go(Did::Exit(exit)) {
            VmEntry::Data(value) => value,
            VmEntry::Continue => 0,
            VmEntry::Refuse => u64::MAX,
        }
    }

    /// Lets interrupts in, or not.
    pub fn interrupts(&mut self, on: bool) {
        self.flags.interruptible.store(on, Ordering::SeqCst);
    }

    /// The guest's memory, which it uses without exits.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Sets CR8.
    pub fn cr8(&mut self, priority: u8) {
        self.flags.cr8.store(priority.into(), Ordering::SeqCst);
    }

    /// Whether CPUID tells of the local APIC.
    pub fn sees_apic(&self) -> bool {
        !self.flags.apic_hidden.load(Ordering::SeqCst)
    }

    pub fn out(&mut self, port: u16, value: u8) {
        self.value(VmExit::Io { port, size: 1, write: Some(value.into()) });
    }

    pub fn outw(&mut self, port: u16, value: u16) {
        self.value(VmExit::Io { port, size: 2, write: Some(value.into()) });
    }

    pub fn input(&mut self, port: u16) -> u8 {
        self.value(VmExit::Io { port, size: 1, write: None }).to_le_bytes()[0]
    }

    pub fn write(&mut self, gpa: u64, value: u32) {
        self.value(VmExit::Mmio { gpa: Gpa(gpa), size: 4, write: Some(value.into()) });
    }

    pub fn read(&mut self, gpa: u64) -> u32 {
        let value = self.value(VmExit::Mmio { gpa: Gpa(gpa), size: 4, write: None });
        u32::try_from(value & 0xffff_ffff).unwrap()
    }

    /// `false`: a general protection fault.
    pub fn wrmsr(&mut self, index: u32, value: u64) -> bool {
        self.go(Did::Exit(VmExit::WriteMsr { index, value })) != VmEntry::Refuse
    }

    pub fn rdmsr(&mut self, index: u32) -> Option<u64> {
        match self.go(Did::Exit(VmExit::ReadMsr { index })) {
            VmEntry::Data(value) => Some(value),
            _ => None,
        }
    }

    pub fn hypercall(&mut self, number: u64, arguments: [u64; 4]) -> u64 {
        self.value(VmExit::Hypercall { number, arguments })
    }

    pub fn halt(&mut self) {
        self.go(Did::Exit(VmExit::Halt));
    }

    pub fn triple_fault(&mut self) {
        self.go(Did::Exit(VmExit::Shutdown { rip: None }));
    }

    /// Computes until something comes; gives the events that have come since.
    pub fn spin(&mut self) -> Vec<Event> {
        self.go(Did::Spin);
        core::mem::take(&mut self.events)
    }

    /// Turns the machine off.
    pub fn off(&mut self) {
        self.outw(super::layout::PM1_CONTROL, 1 << 13 | u16::from(super::layout::SLP_TYP_S5) << 10);
    }
}

/// What a vCPU runs after reset, INIT and start-up.
pub type Program = Arc<dyn Fn(u32, &mut Cpu) + Send + Sync>;

/// The backend.
pub struct Scripted {
    pub program: Program,
    pub clock: Arc<JumpingClock>,
    pub bells: Vec<Arc<Bell>>,
    pub cpuid: Vec<CpuidEntry>,
}

pub struct ScriptedVm {
    memory: Arc<GuestMemory>,
    _bytes: Vec<Vec<u64>>,
    program: Program,
    clock: Arc<JumpingClock>,
    bells: Vec<Arc<Bell>>,
    frequency: u64,
}

impl Backend for Scripted {
    type Vm = ScriptedVm;

    fn name(&self) -> &'static str {
        "scripted"
    }

    fn capabilities(&self) -> BackendCaps {
        let max_vcpus = u32::try_from(self.bells.len()).unwrap();
        BackendCaps { doorbells: false, answers_locally: false, lowest_gpa: Gpa(0), max_vcpus }
    }

    fn create_vm(&self, spec: VmSpec) -> Result<ScriptedVm, BackendError> {
        self.create_machine(&MachineSpec {
            ram: core::slice::from_ref(&(0..spec.memory)),
            vcpus: 1,
            tsc_khz: None,
        })
    }
}

impl MachineBackend for Scripted {
    fn create_machine(&self, spec: &MachineSpec<'_>) -> Result<ScriptedVm, BackendError> {
        let mut memory = GuestMemory::new();
        let mut bytes = Vec::new();
        for range in spec.ram {
            let len = range.end - range.start;
            let mut block = vec![0u64; usize::try_from(len / 8).unwrap()];
            // SAFETY: the bytes live as long as the VM and are not touched otherwise.
            let host = unsafe { HostBlock::new(Gpa(range.start), len, block.as_mut_ptr().cast()) };
            memory.add(host)?;
            bytes.push(block);
        }
        let (program, clock) = (self.program.clone(), self.clock.clone());
        let memory = Arc::new(memory);
        let frequency = match (HostTsc { hz: FREQUENCY, scales: true }).rate(spec.tsc_khz)? {
            Rate::Host => FREQUENCY,
            Rate::Scaled(khz) => u64::from(khz) * 1000,
        };
        let bells = self.bells.clone();
        Ok(ScriptedVm { memory, _bytes: bytes, program, clock, bells, frequency })
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, BackendError> {
        Ok(self.cpuid.clone())
    }
}

impl BackendVm for ScriptedVm {
    type Vcpu = ScriptedVcpu;

    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut GuestMemory {
        Arc::make_mut(&mut self.memory)
    }

    fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), BackendError> {
        Ok(self.memory_mut().protect(range, perms)?)
    }

    fn cycle_frequency(&self) -> Result<u64, BackendError> {
        Ok(self.frequency)
    }

    fn create_vcpu(
        &self,
        state: VcpuState,
        handler: Arc<dyn ExitHandler>,
    ) -> Result<ScriptedVcpu, BackendError> {
        self.create_machine_vcpu(0, &[], state, handler)
    }
}

impl MachineVm for ScriptedVm {
    fn create_machine_vcpu(
        &self,
        index: u32,
        cpuid: &[CpuidEntry],
        state: VcpuState,
        _: Arc<dyn ExitHandler>,
    ) -> Result<ScriptedVcpu, BackendError> {
        if let Some(told) = cpuid.iter().find(|row| row.leaf == 0x4000_0010) {
            assert_eq!(u64::from(told.registers[0]), self.frequency / 1000);
        }
        let bell = self.bells[usize::try_from(index).unwrap()].clone();
        Ok(ScriptedVcpu {
            guest: start(index, state, &self.program, &self.memory),
            index,
            program: self.program.clone(),
            memory: self.memory.clone(),
            bell,
            clock: self.clock.clone(),
            frequency: self.frequency,
            pending: Vec::new(),
            entry: None,
            spins: false,
            window: false,
            deadline: None,
        })
    }
}

struct Guest {
    did: Receiver<Did>,
    resume: Sender<Resume>,
    flags: Arc<Flags>,
}

/// Starts a guest's thread; it waits for its first entry.
fn start(index: u32, state: VcpuState, program: &Program, memory: &Arc<GuestMemory>) -> Guest {
    let ((did, seen), (resume, resumed)) = (channel(), channel());
    let flags = Arc::new(Flags::default());
    let mut cpu = Cpu {
        did,
        resume: resumed,
        flags: flags.clone(),
        events: Vec::new(),
        state,
        memory: memory.clone(),
    };
    let program = program.clone();
    thread::spawn(move || {
        let Ok(first) = cpu.resume.recv() else { return };
        let first: Resume = first;
        cpu.events.extend(first.events);
        program(index, &mut cpu);
        let _ = cpu.did.send(Did::Over);
    });
    Guest { did: seen, resume, flags }
}

/// A vCPU of the backend.
pub struct ScriptedVcpu {
    guest: Guest,
    index: u32,
    program: Program,
    memory: Arc<GuestMemory>,
    bell: Arc<Bell>,
    clock: Arc<JumpingClock>,
    frequency: u64,
    pending: Vec<Event>,
    entry: Option<VmEntry>,
    spins: bool,
    window: bool,
    deadline: Option<u64>,
}

impl ScriptedVcpu {
    /// The guest computes: what ends that.
    fn wait(&mut self) -> VmExit {
        loop {
            if self.bell.take() {
                return VmExit::Interrupted;
            }
            if self.window && self.interruptible() {
                return VmExit::InterruptWindow;
            }
            if let Some(at) = self.deadline {
                self.clock.to(at);
                thread::yield_now();
                return VmExit::Interrupted;
            }
            let kicked = self.bell.kicked.lock().unwrap();
            drop(self.bell.rung.wait_while(kicked, |kicked| !*kicked).unwrap());
        }
    }
}

impl BackendVcpu for ScriptedVcpu {
    fn run(&mut self, entry: VmEntry) -> Result<VmExit, BackendError> {
        // An answer is kept until the guest goes on.
        if self.entry.is_none() || entry != VmEntry::Continue {
            self.entry = Some(entry);
        }
        if self.bell.take() {
            return Ok(VmExit::Interrupted);
        }
        let events = core::mem::take(&mut self.pending);
        if self.spins && events.is_empty() {
            return Ok(self.wait());
        }
        self.spins = false;
        let entry = self.entry.take().unwrap_or(VmEntry::Continue);
        let gone = |_| BackendError::new("the guest's thread is gone");
        self.guest.resume.send(Resume { entry, events }).map_err(|_| gone(()))?;
        match self.guest.did.recv().map_err(|_| gone(()))? {
            Did::Exit(exit) => Ok(exit),
            Did::Spin | Did::Over => {
                self.spins = true;
                Ok(self.wait())
            }
        }
    }
}

impl MachineVcpu for ScriptedVcpu {
    fn interruptible(&self) -> bool {
        self.pending.is_empty() && self.guest.flags.interruptible.load(Ordering::SeqCst)
    }

    fn inject(&mut self, event: Event) {
        assert!(!matches!(event, Event::Interrupt { .. }) || self.interruptible());
        self.pending.push(event);
    }

    fn request_window(&mut self, wanted: bool) {
        self.window = wanted;
    }

    fn task_priority(&self) -> u8 {
        self.guest.flags.cr8.load(Ordering::SeqCst).to_le_bytes()[0] << 4
    }

    fn set_task_priority(&mut self, priority: u8) {
        self.guest.flags.cr8.store(u64::from(priority >> 4), Ordering::SeqCst);
    }

    fn show_local_apic(&mut self, on: bool) {
        self.guest.flags.apic_hidden.store(!on, Ordering::SeqCst);
    }

    fn set_deadline(&mut self, monotonic_ns: Option<u64>) {
        self.deadline = monotonic_ns;
    }

    fn cycles(&self) -> u64 {
        let passed = u128::from(self.clock.monotonic_ns() - BEGIN);
        u64::try_from(passed * u128::from(self.frequency) / 1_000_000_000).unwrap()
    }

    fn reset(&mut self, state: &VcpuState) -> Result<(), BackendError> {
        self.guest = start(self.index, *state, &self.program, &self.memory);
        self.pending.clear();
        self.entry = None;
        self.spins = false;
        self.window = false;
        Ok(())
    }
}

/// What the host has seen and can do.
#[derive(Default)]
pub struct Seen {
    pub console: std::sync::Mutex<Vec<u8>>,
    pub input: std::sync::Mutex<Option<Arc<dyn ConsoleInput>>>,
}

/// The host.
pub struct ScriptedHost {
    pub clock: Arc<JumpingClock>,
    pub bells: Vec<Arc<Bell>>,
    pub seen: Arc<Seen>,
    /// What "kernel" is.
    pub kernel: Vec<u8>,
}

struct Bytes(Vec<u8>);

impl Blob for Bytes {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError> {
        self.0.as_slice().read_at(offset, to)
    }
}

impl Type1Host for ScriptedHost {
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, HostError> {
        match path {
            "kernel" => Ok(Box::new(Bytes(self.kernel.clone()))),
            "firmware" => Ok(Box::new(Bytes(vec![0xf4; 128 << 10]))),
            _ => Err(HostError::new(HostErrorKind::Other, "there is no such file")),
        }
    }

    fn session(&self, _: VmId, _: &str) -> Result<Box<dyn Type1Session>, HostError> {
        let (clock, bells, seen) = (self.clock.clone(), self.bells.clone(), self.seen.clone());
        Ok(Box::new(Session { clock, bells, seen }))
    }
}

struct Session {
    clock: Arc<JumpingClock>,
    bells: Vec<Arc<Bell>>,
    seen: Arc<Seen>,
}

struct Screen(Arc<Seen>);

impl Console for Screen {
    fn write(&self, text: GuestSlice<'_>) -> Result<(), HostError> {
        let mut bytes = vec![0; text.len()];
        text.copy_to(&mut bytes);
        self.0.console.lock().unwrap().extend(bytes);
        Ok(())
    }
}

impl Type1Session for Session {
    fn disk(&mut self, _: &str, _: bool) -> Result<Box<dyn BlockStore>, HostError> {
        Err(HostError::new(HostErrorKind::Other, "no disks here"))
    }

    fn net(
        &mut self,
        _: u32,
        _: Option<&str>,
        _: Option<[u8; 6]>,
        _: Arc<dyn Arrival>,
    ) -> Result<Box<dyn NetPort>, HostError> {
        Err(HostError::new(HostErrorKind::Other, "no networks here"))
    }

    fn lend(&mut self, vcpus: u32, input: Arc<dyn ConsoleInput>) -> Result<Lent, HostError> {
        *self.seen.input.lock().unwrap() = Some(input);
        let bells = self.bells.iter().take(usize::try_from(vcpus).unwrap());
        Ok(Lent {
            console: Box::new(Screen(self.seen.clone())),
            notices: Arc::new(Quiet),
            clock: self.clock.clone(),
            vcpus: bells.map(|bell| bell.clone() as Arc<dyn VcpuThread>).collect(),
        })
    }
}

struct Quiet;

impl Notices for Quiet {
    fn notice(&self, _: core::fmt::Arguments<'_>) {}
}

/// A kernel that can be started by PVH and is never looked at further: its guest is a program.
pub fn kernel() -> Vec<u8> {
    let note: Vec<u8> = [4u32, 4, 18].map(u32::to_le_bytes).concat();
    let note = [note, b"Xen\0".to_vec(), 0x10_0000u32.to_le_bytes().to_vec()].concat();
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([0x10_0000u64, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 2, 0, 0, 0].map(u16::to_le_bytes).concat());
    let at = 64 + 2 * 56;
    let size = note.len() as u64;
    for (kind, flags, address) in [(1u32, 5u32, 0x10_0000u64), (4, 4, 0x10_0000)] {
        file.extend([kind, flags].map(u32::to_le_bytes).concat());
        let words = [at, address, address, size, size, 4];
        file.extend(words.map(u64::to_le_bytes).concat());
    }
    file.extend(note);
    file
}
