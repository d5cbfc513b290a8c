//! The VMs of this machine: made of descriptions in the boot module, run by a thread for each
//! vCPU.

pub mod clock;
mod files;
mod host;
mod session;
mod type1;

pub use files::Files;

use crate::cpu::local;
use crate::end::{self, Told};
use crate::log::{self, Level};
use crate::memory::Kept;
use crate::memory::stack::{Promised, Stack};
use crate::scheduled::Scheduled;
use crate::{memory, smp, terminal, thread, time};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use backend_native::Native;
use clock::MachineClock;
use core::ops::Bound;
use host::{Host, Machine};
use host_baremetal::cpus::{CpuSet, GuestCpus};
use host_baremetal::sched::ThreadId;
use hypervisor::config::{HypervisorConfig, VcpuConfig, VmConfig};
use hypervisor::mode::{Hypervisor, ModeCapabilities, ModeError, Vcpu, VcpuExit, VmInfo};
use hypervisor::modes::hvt::arch::GuestArch;
use hypervisor::modes::hvt::mode::{Hvt, HvtLent};
use hypervisor::modes::type1::mode::{Type1, Type1Lent};
use hypervisor::sync::Mutex;
use hypervisor::vm::{Limits, State, VmError, VmId};

/// VMs and vCPUs that there can be: each vCPU has a thread with a stack.
const MOST: u32 = 4096;
/// How often [`Machines::wait`] looks, in nanoseconds.
const LOOK: u64 = 1_000_000;
/// How long a stack is waited for, in nanoseconds.
const STACK_PATIENCE: u64 = 1_000_000_000;
/// How the name of a description ends.
const CONFIG: &str = ".toml";

/// All VMs.
pub struct Machines {
    hypervisor: Hypervisor,
    machine: Arc<Machine>,
    /// Where vCPUs may run; what is wrong with the command line's word for it, if anything.
    pub guest_cpus: Result<CpuSet, String>,
    /// Why this machine can run no guests, if it cannot.
    no_guests: Option<String>,
    entries: Mutex<BTreeMap<VmId, Entry>>,
    /// What is called when no vCPU runs any more.
    idle: Mutex<Option<WhenIdle>>,
}

/// Is told whether all VMs ended well.
type WhenIdle = Box<dyn FnOnce(bool) + Send>;

/// What is kept of a VM here.
struct Entry {
    name: String,
    /// vCPUs that do not run. It has room for all.
    vcpus: Vec<Box<dyn Vcpu>>,
    /// The CPU of each vCPU; empty if they run wherever there is room.
    cpus: Vec<u32>,
    /// The threads of its vCPUs, by their numbers, since its last start. It has room for all.
    threads: Vec<(u32, ThreadId)>,
    /// The stacks of those threads.
    stacks: Arc<Promised>,
    /// What the host will need for it.
    _kept: Kept,
    running: u32,
    /// None runs any more, and the person has not been told yet.
    telling: bool,
    /// How it ended, for people.
    ending: String,
    good: bool,
}

/// What making a VM allocates from the heap at most, without its vCPUs: with its devices, tables for
/// its firmware and a description. Stacks, frames and network queues are asked for by themselves.
const VM_ROOM: u64 = 512 << 10;
/// The same for a vCPU, with all rows of its CPUID.
const VCPU_ROOM: u64 = 64 << 10;
/// The same for a byte of a description: it is read into a tree.
const TEXT_ROOM: u64 = 64;
/// What is kept for the host's words about a VM, and for what it allocates to start, run and reset
/// one.
const VM_KEPT: u64 = 16 << 10;
/// The same for a vCPU: what its thread begins with, and what is under way in its devices.
const VCPU_KEPT: u64 = 4 << 10;
/// Why no VM is made.
const FULL: &str = "this machine has not enough free memory to make another VM: destroy one first";

/// Where an emulator that counts instructions begins to count a VM's making; nothing elsewhere
/// (docs/benchmarks.md).
fn mark() {
    // SAFETY: an instruction without any effect.
    unsafe { core::arch::asm!("nop dword ptr [rax + 0x524b]", options(nomem, nostack)) };
}

/// A stack for a vCPU's thread. The thread of its last run may be about to give its own back.
fn stack(stacks: &Arc<Promised>) -> Option<Stack> {
    if let Some(stack) = stacks.take() {
        return Some(stack);
    }
    let until = time::now().saturating_add(STACK_PATIENCE);
    loop {
        let stack = stacks.take();
        if stack.is_some() || time::now() >= until {
            return stack;
        }
        thread::park(Some(time::now().saturating_add(LOOK)));
    }
}

/// A line of a list.
pub struct Line {
    /// What the core knows.
    pub info: VmInfo,
    /// The CPUs of its vCPUs, if they are pinned.
    pub cpus: Vec<u32>,
    /// How it ended.
    pub ending: String,
}

impl Machines {
    /// None yet, of the descriptions in this module; their vCPUs will run on these CPUs.
    pub fn new(files: Files, on: Result<GuestCpus, String>) -> Arc<Self> {
        let guest_cpus = on.and_then(|cpus| cpus.on(local::count(), smp::runs));
        let limits = Limits { vms: MOST, memory: memory::free(), vcpus: MOST };
        let config = HypervisorConfig::default();
        let mut hypervisor = Hypervisor::new(config, limits, Arc::new(MachineClock));
        let machine = Arc::new(Machine::new(files));
        let host = Host(machine.clone());
        crate::platform::promise_cpus();
        // The heap's piece is set aside here rather than while the first VM is made.
        memory::has_room(0);
        let added = Native::new(&crate::platform::Machine).map_err(|error| error.to_string());
        let added = added.and_then(|backend| {
            let lent = Type1Lent { backend: Scheduled(backend.clone()), host: host.clone() };
            hypervisor.add::<Type1<_, _>>(lent).map_err(|error| error.to_string())?;
            let lent = HvtLent { backend: Scheduled(backend), host, arch: GuestArch::X86_64 };
            hypervisor.add::<Hvt<_, _>>(lent).map_err(|error| error.to_string())
        });
        let no_guests = added.err().map(|error| format!("no guests can run here: {error}"));
        let (entries, idle) = (Mutex::default(), Mutex::new(None));
        Arc::new(Self { hypervisor, machine, guest_cpus, no_guests, entries, idle })
    }

    /// Whether guests can run at all.
    ///
    /// # Errors
    /// Why not: the processor, or what the command line says of CPUs.
    pub fn can_run(&self) -> Result<(), String> {
        self.no_guests.clone().map_or(Ok(()), Err)?;
        self.guest_cpus.as_ref().map(drop).map_err(Clone::clone)
    }

    /// The names of the descriptions, without their ending.
    pub fn configs(&self) -> Result<Vec<&str>, String> {
        let names = self.machine.files.names().map_err(|error| error.to_string())?;
        Ok(names.into_iter().filter_map(|name| name.strip_suffix(CONFIG)).collect())
    }

    /// What each mode can do.
    pub fn modes(&self) -> Vec<ModeCapabilities> {
        let modes = self.hypervisor.available().into_iter();
        modes.filter_map(|mode| Some(self.hypervisor.mode(mode).ok()?.capabilities())).collect()
    }

    /// Makes a VM of a description.
    pub fn create(&self, config: &str) -> Result<VmId, String> {
        mark();
        // What is wrong with CPUs is looked at below.
        self.no_guests.clone().map_or(Ok(()), Err)?;
        let plain = config.strip_suffix(CONFIG).unwrap_or(config);
        let named = |error: &dyn core::fmt::Display| format!("{plain}{CONFIG}: {error}");
        let files = &self.machine.files;
        // Nothing is begun that there is no room to finish.
        let room = |bytes| if memory::has_room(bytes) { Ok(()) } else { Err(named(&FULL)) };
        let text = files.text(&format!("{plain}{CONFIG}")).map_err(|error| named(&error))?;
        room(VM_ROOM.saturating_add(TEXT_ROOM.saturating_mul(text.len() as u64)))?;
        let config = VmConfig::from_toml(text).map_err(|error| named(&error))?;
        let count = u64::from(config.vcpus);
        let kept = Kept::new(VM_KEPT + count * VCPU_KEPT).ok_or_else(|| named(&FULL))?;
        // One vCPU is in what was asked for before.
        if count > 1 {
            room(VM_ROOM + count * VCPU_ROOM)?;
        }
        let last = local::count() - 1;
        let there = format_args!("this machine has 0 to {last}");
        config.check_cpus(smp::runs, there).map_err(|error| named(&error))?;
        self.check_guest_cpus(&config.cpus).map_err(|error| named(&error))?;
        let blob = config.boot_image().and_then(|image| files.open(image).ok());
        let (name, vcpus, cpus) = (config.name.clone(), config.vcpus, config.cpus.clone());
        let stacks = Arc::new(thread::promise(vcpus).ok_or_else(|| named(&FULL))?);
        let vm = self.hypervisor.create_vm(config, blob.as_deref()).map_err(|e| named(&e))?;
        let made = self.make_vcpus(vm, vcpus).map_err(|error| {
            let _ = self.hypervisor.mode_of(vm).and_then(|mode| mode.destroy_vm(vm));
            named(&error)
        })?;
        let ending = String::new();
        let threads = Vec::with_capacity(made.len());
        let entry = Entry {
            name,
            vcpus: made,
            cpus,
            threads,
            stacks,
            _kept: kept,
            running: 0,
            telling: false,
            ending,
            good: false,
        };
        self.entries.lock().insert(vm, entry);
        Ok(vm)
    }

    /// Checks that guests may use the CPUs that a VM is pinned to, or any, if it is not.
    fn check_guest_cpus(&self, pins: &[u32]) -> Result<(), String> {
        let guests = self.guest_cpus.as_ref().map_err(Clone::clone)?;
        match pins.iter().find(|cpu| !guests.has(**cpu)) {
            None => Ok(()),
            Some(cpu) => Err(format!(
                "`cpus` names CPU {cpu}, which is kept from guests: the image was started with \
                 guest-cpus={guests}"
            )),
        }
    }

    fn make_vcpus(&self, vm: VmId, count: u32) -> Result<Vec<Box<dyn Vcpu>>, String> {
        let text = |error: ModeError| error.to_string();
        let mode = self.hypervisor.mode_of(vm).map_err(text)?;
        (0..count).map(|index| mode.create_vcpu(vm, VcpuConfig { index }).map_err(text)).collect()
    }

    /// Lets a VM run, each vCPU in a thread of its own.
    pub fn start(self: &Arc<Self>, vm: VmId) -> Result<(), String> {
        let text = |error: ModeError| error.to_string();
        self.hypervisor.mode_of(vm).and_then(|mode| mode.start_vm(vm)).map_err(text)?;
        let guests = self.guest_cpus.as_ref().map_err(Clone::clone)?;
        let count = self.entries.lock().get_mut(&vm).map_or(0, |entry| {
            entry.running += u32::try_from(entry.vcpus.len()).unwrap_or(0);
            entry.ending.clear();
            entry.threads.clear();
            entry.vcpus.len()
        });
        for _ in 0..count {
            let Some((vcpu, on, stacks)) = self.next(vm, *guests) else { break };
            let own = self.clone();
            let number = vcpu.id().0;
            let spawned = stack(&stacks)
                .and_then(|stack| thread::spawn_with(stack, on, move || own.run(vm, vcpu)));
            match spawned {
                Some(thread) => self.began(vm, number, thread),
                None => self.ended(vm, None, "no memory for a vCPU's thread".into(), false),
            }
        }
        Ok(())
    }

    /// The next vCPU to be started, where it may run, and the stacks of its VM. One that has ended
    /// meanwhile stands behind those that have not begun.
    fn next(&self, vm: VmId, guests: CpuSet) -> Option<(Box<dyn Vcpu>, CpuSet, Arc<Promised>)> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&vm).filter(|entry| !entry.vcpus.is_empty())?;
        let vcpu = entry.vcpus.remove(0);
        let pin = entry.cpus.get(usize::try_from(vcpu.id().0).unwrap_or(usize::MAX));
        let on = pin.map_or(guests, |cpu| CpuSet::one(*cpu));
        Some((vcpu, on, entry.stacks.clone()))
    }

    fn began(&self, vm: VmId, vcpu: u32, thread: ThreadId) {
        if let Some(entry) = self.entries.lock().get_mut(&vm) {
            entry.threads.push((vcpu, thread));
        }
    }

    /// The vCPUs of a VM that run, each with the CPU where it did last.
    pub fn places(&self, vm: VmId) -> Vec<(u32, u32)> {
        let threads = self.entries.lock().get(&vm).map(|entry| entry.threads.clone());
        let place = |(vcpu, thread)| Some((vcpu, thread::last_on(thread)?));
        threads.into_iter().flatten().filter_map(place).collect()
    }

    /// A vCPU's thread.
    fn run(self: Arc<Self>, vm: VmId, mut vcpu: Box<dyn Vcpu>) {
        let (ending, good) = match vcpu.run() {
            Ok(VcpuExit::Exit { status, .. }) => {
                end::tell(&Told::Status(status));
                (format!("exit status {status}"), status == 0)
            }
            Ok(VcpuExit::Interrupted) => ("stopped".into(), true),
            // Before this thread came to run it.
            Err(ModeError::Vm(VmError::WrongState { state: State::Stopped, .. })) => {
                ("stopped".into(), true)
            }
            Ok(VcpuExit::Fault(line)) => (line.to_string(), false),
            Err(error) => (error.to_string(), false),
        };
        // Its registers may still be in this CPU, and whoever has it next, to run it or to drop it,
        // may be on another.
        backend_native::release(&crate::platform::Machine);
        // A status that is not 0 has been told as such.
        if !good {
            end::tell(&Told::Failure(&ending));
        }
        self.ended(vm, Some(vcpu), ending, good);
    }

    fn ended(&self, vm: VmId, vcpu: Option<Box<dyn Vcpu>>, ending: String, good: bool) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(&vm) else { return };
        entry.vcpus.extend(vcpu);
        entry.running = entry.running.saturating_sub(1);
        if entry.running > 0 {
            // The VM ends with its last vCPU.
            (entry.ending, entry.good) = (ending, good);
            return;
        }
        let name = entry.name.clone();
        (entry.ending, entry.good, entry.telling) = (ending.clone(), good, true);
        let nothing_runs = entries.values().all(|entry| entry.running == 0);
        let all_good = entries.values().all(|entry| entry.good);
        drop(entries);
        let idle = if nothing_runs { self.idle.lock().take() } else { None };
        if idle.is_some() {
            // The machine is left: nobody is asked for another command.
            terminal::end_lines();
        }
        let notice = format_args!("VM {vm} ({name}): {ending}");
        terminal::finish_guest(vm.get(), false, log::shows(Level::Info).then_some(notice));
        if let Some(entry) = self.entries.lock().get_mut(&vm) {
            entry.telling = false;
        }
        if let Some(idle) = idle {
            idle(all_good);
        }
    }

    /// Waits until no vCPU of a VM runs and its end has been told, or until a time of [`time::now`].
    pub fn wait(&self, vm: VmId, until: u64) {
        let lives = |entry: &Entry| entry.running > 0 || entry.telling;
        let runs = || self.entries.lock().get(&vm).is_some_and(lives);
        while runs() && time::now() < until {
            thread::park(Some(until.min(time::now().saturating_add(LOOK))));
        }
    }

    /// Gives a VM a byte that was typed. `false` if it has no room for it now.
    pub fn type_in(&self, vm: u32, byte: u8) -> bool {
        let id = VmId::new(vm);
        let input = id.and_then(|id| self.machine.inputs.lock().get(&id).cloned());
        // A unikernel has no input: what is typed to it is gone.
        input.is_none_or(|input| input.type_in(&[byte]) == 1)
    }

    /// Calls `work`, once, when no vCPU runs any more, with whether all ended well.
    pub fn when_idle(&self, work: impl FnOnce(bool) + Send + 'static) {
        *self.idle.lock() = Some(Box::new(work));
    }

    /// Ends a VM's run.
    pub fn stop(&self, vm: VmId) -> Result<(), String> {
        let stopped = self.hypervisor.mode_of(vm).and_then(|mode| mode.stop_vm(vm));
        stopped.map_err(|error| error.to_string())
    }

    /// Gives back what a VM has.
    pub fn destroy(&self, vm: VmId) -> Result<(), String> {
        let destroyed = self.hypervisor.mode_of(vm).and_then(|mode| mode.destroy_vm(vm));
        destroyed.map_err(|error| error.to_string())?;
        let entry = self.entries.lock().remove(&vm);
        drop(entry);
        terminal::finish_guest(vm.get(), true, None);
        Ok(())
    }

    /// All VMs, by number. Each is looked at when it is its turn: a list of all of them at once
    /// could take more memory than is kept for words.
    pub fn list(&self) -> impl Iterator<Item = Line> {
        let mut last = None;
        core::iter::from_fn(move || {
            let line = self.line_after(last)?;
            last = Some(line.info.id);
            Some(line)
        })
    }

    fn line_after(&self, last: Option<VmId>) -> Option<Line> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.entries.lock();
        let (id, entry) = entries.range((from, Bound::Unbounded)).next()?;
        let info = self.hypervisor.mode_of(*id).and_then(|mode| mode.vm(*id)).ok()?;
        Some(Line { info, cpus: entry.cpus.clone(), ending: entry.ending.clone() })
    }

    /// The VM that a person calls by name or number.
    pub fn find(&self, word: &str) -> Result<VmId, String> {
        let number = word.parse().ok().and_then(VmId::new);
        let entries = self.entries.lock();
        let named = entries.iter().find(|(id, entry)| entry.name == word || Some(**id) == number);
        named.map(|(id, _)| *id).ok_or_else(|| format!("there is no VM \"{word}\": see `list`"))
    }

    /// The names of all VMs.
    pub fn names(&self) -> Vec<String> {
        self.entries.lock().values().map(|entry| entry.name.clone()).collect()
    }
}
