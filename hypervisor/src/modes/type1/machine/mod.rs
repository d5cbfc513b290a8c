//! One machine: its backend's VM, its board with everything on it, and how it starts again.
//!
//! Order: [`Machine::new`], [`Machine::load`], then its processors run ([`super::processor`]).
//!
//! Lock order: `gathering` is a leaf; a reset is done by the last vCPU to arrive, when every other
//! one waits outside of its guest and holds nothing.

mod gathering;
mod loader;
mod parts;

pub use gathering::{Gathering, Turn};
pub use loader::Loader;
pub use parts::Parts;

use super::apic::{ApicBus, Inbox, Requests};
use super::board::{Board, Power, Verdict};
use super::host::{Lent, Type1Session};
use super::interrupts::{BackendApics, Controllers, Messages};
use super::mode::Type1Error;
use super::paravirt::Reference;
use super::slots::{NetLink, Slots};
use crate::config::Type1Console;
use crate::device::Effects;
use crate::host::{BlockStore, Clock, NetPort, Notices};
use crate::memory::GuestMemory;
use crate::sync::Mutex;
use crate::vcpu::machine::MachineVm;
use crate::vcpu::{VcpuState, line};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A machine.
///
/// Fields are dropped in order: first whoever could still call in from the host's side, last the
/// VM, whose memory devices use.
pub struct Machine<V> {
    /// The host's side: networks that call devices when a frame has arrived.
    _session: Mutex<Box<dyn Type1Session>>,
    /// What the host tells of frames.
    links: Vec<Arc<NetLink>>,
    /// What is on the board and has to be reset.
    pub parts: Parts,
    /// What devices are plugged into.
    pub board: Arc<Board>,
    /// The I/O APIC and the 8259 pair.
    pub controllers: Arc<Controllers>,
    /// The vCPUs as others reach them.
    pub bus: Arc<ApicBus>,
    /// Whether the local APICs are the core's.
    pub local_apics: bool,
    /// The TSC's frequency in Hz.
    pub frequency: u64,
    /// CPUID leaf 1's EAX: RDX after reset.
    pub signature: u32,
    /// Bits of a physical address.
    pub address_bits: u32,
    /// How it starts.
    pub loader: Loader,
    /// Where vCPUs meet for a reset.
    pub gathering: Gathering,
    /// The moment from which the paravirtual clocks count. A leaf lock.
    reference: Mutex<Option<Reference>>,
    /// The state in which the first vCPU starts. A leaf lock.
    start: Mutex<Option<VcpuState>>,
    /// The backend's VM.
    pub vm: V,
}

/// What goes into PCI's slots.
#[derive(Default)]
pub struct Devices {
    /// Disks, and whether they are read-only.
    pub disks: Vec<(Box<dyn BlockStore>, bool)>,
    /// Networks, and what the host tells of frames.
    pub nets: Vec<(Box<dyn NetPort>, Arc<NetLink>)>,
}

/// What a machine is made of.
pub struct Plan<V> {
    /// The backend's VM.
    pub vm: V,
    /// The host's side.
    pub session: Box<dyn Type1Session>,
    /// What it lends.
    pub lent: Lent,
    /// What the host was given for input.
    pub input: Arc<super::devices::SerialInput>,
    /// What goes into PCI's slots.
    pub devices: Devices,
    /// How it starts.
    pub loader: Loader,
    /// CPUID leaf 1's EAX.
    pub signature: u32,
    /// Bits of a physical address.
    pub address_bits: u32,
    /// Where the first serial line leads.
    pub console: Type1Console,
    /// Ports for firmware and tests.
    pub debug: bool,
}

impl<V: MachineVm> Machine<V> {
    /// Puts a machine together. Nothing is in its memory yet.
    ///
    /// # Errors
    /// If the backend does not tell its frequency, or the parts do not fit together.
    pub fn new(plan: Plan<V>) -> Result<Self, Type1Error> {
        let Plan {
            vm,
            session,
            lent,
            input,
            devices,
            loader,
            signature,
            address_bits,
            console,
            debug,
        } = plan;
        let frequency = vm.cycle_frequency()?;
        let inboxes = lent.vcpus.iter().map(|thread| Arc::new(Inbox::new(thread.clone())));
        let bus = Arc::new(ApicBus::new(inboxes.collect()));
        let backend = vm.local_controllers();
        let local_apics = backend.is_none();
        let messages: Arc<dyn Messages> = match backend {
            Some(controllers) => Arc::new(BackendApics { controllers, bus: bus.clone() }),
            None => bus.clone(),
        };
        let controllers = Arc::new(Controllers::new(messages));
        let power = Arc::new(Power::new());
        let board = Arc::new(Board::new(lent.clock.clone(), controllers.clone(), power));
        wake_up(&board, &bus);
        let spec = parts::Spec {
            console,
            debug,
            memory: loader.memory(),
            firmware: loader.has_firmware(),
        };
        let parts = Parts::attach(&board, &controllers, lent.console, input, &spec)?;
        let links = plug(devices, &board, &parts, &vm, lent.notices, loader.has_firmware())?;
        Ok(Self {
            _session: Mutex::new(session),
            links,
            parts,
            board,
            controllers,
            bus,
            local_apics,
            frequency,
            signature,
            address_bits,
            loader,
            gathering: Gathering::default(),
            reference: Mutex::new(None),
            start: Mutex::new(None),
            vm,
        })
    }

    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        self.vm.memory()
    }

    /// The host's clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.board.clock
    }

    /// Loads what the machine starts with: at first, and after each reset.
    ///
    /// # Errors
    /// If the host or the memory does not give what that needs.
    pub fn load(&self) -> Result<(), Type1Error> {
        let state = self.loader.load(self.memory(), &self.parts, &self.board, self.signature)?;
        *self.start.lock() = Some(VcpuState::X86(state));
        Ok(())
    }

    /// The state in which the first vCPU starts.
    pub fn start(&self) -> Option<VcpuState> {
        *self.start.lock()
    }

    /// The moment from which clocks count: the first time that anybody asks, it is `now`.
    pub fn reference(&self, now: impl FnOnce() -> Reference) -> Reference {
        if let Some(reference) = *self.reference.lock() {
            return reference;
        }
        // Asked without the lock: it calls the host.
        let now = now();
        *self.reference.lock().get_or_insert(now)
    }

    /// Resets everything but the processors. Only while none of them is in its guest.
    pub fn reset(&self) {
        self.board.devices.lines.reset();
        self.board.apply(self.parts.reset());
        self.controllers.reset();
        *self.reference.lock() = None;
        // What a processor was asked for before it is asked no more.
        self.bus.inboxes().iter().for_each(|inbox| inbox.clear());
        if let Err(error) = self.load() {
            self.board.power.ask(Verdict::Fault(line(format_args!("reset: {error}"))));
        }
    }

    /// The power button is pressed: the guest may turn itself off.
    pub fn press_power_button(&self) {
        let effects: Effects = self.parts.power_button().press();
        self.board.apply(effects);
    }
}

impl<V> Drop for Machine<V> {
    fn drop(&mut self) {
        self.links.iter().for_each(|link| link.disconnect());
        self.parts.disconnect();
    }
}

/// Puts disks, then networks into PCI's slots.
fn plug(
    devices: Devices,
    board: &Arc<Board>,
    parts: &Parts,
    vm: &impl MachineVm,
    notices: Arc<dyn Notices>,
    firmware: bool,
) -> Result<Vec<Arc<NetLink>>, Type1Error> {
    let mut slots = Slots::new(board, &parts.pci, vm.memory(), notices);
    for (store, read_only) in devices.disks {
        slots.disk(store, read_only)?;
    }
    let mut links = Vec::new();
    for (port, link) in devices.nets {
        slots.net(port, &link)?;
        links.push(link);
    }
    slots.finish(firmware);
    Ok(links)
}

/// What changes from outside makes the vCPUs look: all for the machine's end, the first for timers.
fn wake_up(board: &Board, bus: &Arc<ApicBus>) {
    let all = bus.clone();
    board.power.on_ask(move || all.inboxes().iter().for_each(|inbox| inbox.ask(Requests::LOOK)));
    let first = bus.clone();
    board.timers.on_earlier(move || {
        first.inboxes().first().into_iter().for_each(|inbox| inbox.ask(Requests::LOOK));
    });
}
