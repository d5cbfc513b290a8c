//! What is between a device and the bus that a guest finds it on (VIRTIO 1.3 §2 and §3): status,
//! features, queues, and the order in which a queue's work is done.
//!
//! A queue at work is taken out of the state, so that no lock is held while its device calls the
//! host; notifications meanwhile are remembered. A reset that the driver asks for meanwhile is
//! complete, as the status then says, when the work has come back.
//!
//! A device reads and writes the guest's memory only while its bus lets it be a master: a driver that
//! is gone, such as that of a kernel before kexec, is protected from by taking that away. What was
//! notified meanwhile is done when it is given back.

use super::queue::{Layout, Queue, QueueError};
use super::report::Report;
use super::{Context, VirtioDevice, feature};
use crate::device::{Effect, Effects, Work, WorkRef};
use crate::host::Notices;
use crate::memory::GuestMemory;
use crate::modes::type1::pci::Interrupts;
use crate::sync::Mutex;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// Bits of the device status (VIRTIO 1.3 §2.1).
pub mod status {
    /// The driver has accepted the features.
    pub const FEATURES_OK: u8 = 8;
    /// The driver drives.
    pub const DRIVER_OK: u8 = 4;
    /// The device cannot go on.
    pub const NEEDS_RESET: u8 = 64;
}

/// A vector that no message has.
pub const NO_VECTOR: u16 = 0xffff;
/// Bits of the interrupt status (VIRTIO 1.3 §4.1.4.5).
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// A device, its state as the driver sees it, and the guest's memory.
pub struct Transport {
    device: Arc<dyn VirtioDevice>,
    memory: Arc<GuestMemory>,
    interrupts: Arc<Interrupts>,
    /// The bus lets the device access memory.
    master: AtomicBool,
    /// Lock order: this, then `interrupts`.
    state: Mutex<State>,
    /// Who hears of broken queues. A leaf lock.
    report: Mutex<Option<Arc<Report>>>,
}

/// One queue as the driver has set it up.
#[derive(Debug)]
pub(super) struct Slot {
    pub layout: Layout,
    pub max_size: u16,
    pub vector: u16,
    pub enabled: bool,
    /// There, if it is enabled and nobody works on it.
    queue: Option<Queue>,
    busy: bool,
    notified: bool,
}

/// What the driver sees and sets.
#[derive(Debug)]
pub(super) struct State {
    pub status: u8,
    pub device_features_select: u32,
    pub driver_features_select: u32,
    pub driver_features: u64,
    pub config_vector: u16,
    pub queue_select: u16,
    pub queues: Vec<Slot>,
    isr: u8,
    resetting: bool,
}

impl State {
    fn new(device: &dyn VirtioDevice) -> Self {
        let slot = |max_size: &u16| Slot {
            layout: Layout { size: *max_size, ..Layout::default() },
            max_size: *max_size,
            vector: NO_VECTOR,
            enabled: false,
            queue: None,
            busy: false,
            notified: false,
        };
        Self {
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            queue_select: 0,
            queues: device.queue_sizes().iter().map(slot).collect(),
            isr: 0,
            resetting: false,
        }
    }

    /// The queue that the driver has selected.
    pub fn selected(&mut self) -> Option<&mut Slot> {
        self.queues.get_mut(usize::from(self.queue_select))
    }

    /// Features cannot be changed once both sides have agreed on them.
    pub fn write_features(&mut self, value: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        let (keep, value) = match self.driver_features_select {
            0 => (0xffff_ffff << 32, u64::from(value)),
            1 => (0xffff_ffff, u64::from(value) << 32),
            _ => return,
        };
        self.driver_features = (self.driver_features & keep) | value;
    }

    fn is_running(&self) -> bool {
        self.status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK
            && !self.resetting
    }
}

impl Transport {
    /// A device after power-on.
    pub fn new(
        device: Arc<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        interrupts: Arc<Interrupts>,
    ) -> Self {
        let state = Mutex::new(State::new(&*device));
        let master = AtomicBool::new(false);
        Self { device, memory, interrupts, master, state, report: Mutex::new(None) }
    }

    /// Broken queues are told to `log` from now on, under this name of the device.
    pub fn report_to(&self, name: &str, log: Arc<dyn Notices>) {
        *self.report.lock() = Some(Arc::new(Report::new(name, log)));
    }

    /// The device.
    pub fn device(&self) -> &dyn VirtioDevice {
        &*self.device
    }

    /// Its interrupts.
    pub(super) fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    /// All features that are offered.
    pub fn features(&self) -> u64 {
        self.device.features() | feature::COMMON
    }

    /// Something has come for a queue from outside of the guest: works on it, on the caller's
    /// thread, which may block. Apply the effects.
    pub fn poll(self: &Arc<Self>, index: usize) -> Effects {
        if self.mark(index) { self.run_all() } else { Effects::new() }
    }

    /// The driver notifies the device.
    pub(super) fn notify(self: &Arc<Self>, index: usize, effects: &mut Effects) {
        if self.mark(index) {
            effects.push(Effect::Work(WorkRef::new(self.clone())));
        }
    }

    /// Remembers that a queue has work; whether somebody has to do it.
    fn mark(&self, index: usize) -> bool {
        let mut state = self.state.lock();
        let running = state.is_running();
        let slot = state.queues.get_mut(index).filter(|slot| slot.enabled && running);
        let Some(slot) = slot else { return false };
        slot.notified = true;
        !slot.busy && self.is_master()
    }

    fn is_master(&self) -> bool {
        self.master.load(Ordering::SeqCst)
    }

    /// The driver lets the device access memory, or forbids it.
    pub(super) fn set_master(self: &Arc<Self>, master: bool, effects: &mut Effects) {
        let was = self.master.swap(master, Ordering::SeqCst);
        let waits = || self.state.lock().queues.iter().any(|slot| slot.notified && !slot.busy);
        if master && !was && waits() {
            effects.push(Effect::Work(WorkRef::new(self.clone())));
        }
    }

    /// Looks at and changes what the driver sees.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock())
    }

    /// The driver reads the interrupt status, which takes the interrupt back.
    pub(super) fn take_isr(&self, effects: &mut Effects) -> u8 {
        let mut state = self.state.lock();
        let isr = core::mem::take(&mut state.isr);
        self.interrupts.set_level(false, effects);
        isr
    }

    /// The driver writes the device status.
    pub(super) fn set_status(&self, value: u8, effects: &mut Effects) {
        let mut state = self.state.lock();
        if value == 0 {
            state.resetting = true;
            return self.reset_if_idle(&mut state, effects);
        }
        if state.resetting {
            return;
        }
        let accepted = state.driver_features & !self.features() == 0
            && state.driver_features & feature::VERSION_1 != 0;
        let refused = if accepted { 0 } else { status::FEATURES_OK };
        state.status = (value & !refused) | (state.status & status::NEEDS_RESET);
    }

    /// The driver enables the queue that it has selected.
    pub(super) fn enable_queue(&self, effects: &mut Effects) {
        let mut state = self.state.lock();
        let features = state.driver_features;
        let ready = state.status & status::FEATURES_OK != 0 && !state.resetting;
        let Some(slot) = state.selected().filter(|slot| ready && !slot.enabled) else { return };
        let has = |feature| features & feature != 0;
        let (event_index, indirect) = (has(feature::EVENT_IDX), has(feature::INDIRECT_DESC));
        match Queue::new(slot.layout, &self.memory, event_index, indirect) {
            Ok(queue) => (slot.queue, slot.enabled) = (Some(queue), true),
            Err(error) => self.break_down(&mut state, error, effects),
        }
    }

    /// The whole machine was reset.
    pub(super) fn reset(&self, effects: &mut Effects) {
        self.set_status(0, effects);
    }

    /// Does the work of all queues that were notified.
    fn run_all(self: &Arc<Self>) -> Effects {
        let mut effects = Effects::new();
        let mut more = false;
        for index in 0..self.device.queue_sizes().len() {
            more |= self.run_queue(index, &mut effects);
        }
        if more {
            effects.push(Effect::Work(WorkRef::new(self.clone())));
        }
        effects
    }

    /// Works on one queue; whether there is more to do.
    fn run_queue(&self, index: usize, effects: &mut Effects) -> bool {
        let Some((mut queue, features)) = self.check_out(index) else { return false };
        let context = Context { memory: &self.memory, features };
        let outcome = self.device.process(index, &mut queue, &context);
        let signal = queue.take_signal(&self.memory);
        let outcome = outcome.and_then(|more| Ok((more, signal?)));
        self.check_in(index, queue, outcome, effects)
    }

    fn check_out(&self, index: usize) -> Option<(Queue, u64)> {
        let mut state = self.state.lock();
        let running = state.is_running() && self.is_master();
        let features = state.driver_features;
        let slot = state.queues.get_mut(index).filter(|slot| running && slot.notified)?;
        let queue = slot.queue.take()?;
        (slot.busy, slot.notified) = (true, false);
        Some((queue, features))
    }

    /// What was done is told to the driver. Whether there is more to do.
    fn check_in(
        &self,
        index: usize,
        queue: Queue,
        outcome: Result<(bool, bool), QueueError>,
        effects: &mut Effects,
    ) -> bool {
        let mut state = self.state.lock();
        let Some(slot) = state.queues.get_mut(index) else { return false };
        slot.busy = false;
        slot.queue = Some(queue);
        let vector = slot.vector;
        match outcome {
            _ if state.resetting => self.reset_if_idle(&mut state, effects),
            Err(error) => self.break_down(&mut state, error, effects),
            Ok((more, signal)) => {
                if more {
                    state.queues[index].notified = true;
                }
                if signal {
                    self.interrupt(&mut state, ISR_QUEUE, vector, effects);
                }
                return state.is_running() && self.is_master() && state.queues[index].notified;
            }
        }
        false
    }

    /// A queue is broken: the device needs a reset, and tells so.
    fn break_down(&self, state: &mut State, error: QueueError, effects: &mut Effects) {
        let known = state.status & status::NEEDS_RESET != 0;
        state.status |= status::NEEDS_RESET;
        if let Some(report) = self.report.lock().as_ref().filter(|_| !known) {
            effects.push(Effect::Work(report.broken(error)));
        }
        if state.status & status::DRIVER_OK != 0 {
            let vector = state.config_vector;
            self.interrupt(state, ISR_CONFIG, vector, effects);
        }
    }

    fn interrupt(&self, state: &mut State, isr: u8, vector: u16, effects: &mut Effects) {
        if self.interrupts.uses_messages() {
            self.interrupts.send(vector, effects);
        } else {
            state.isr |= isr;
            self.interrupts.set_level(true, effects);
        }
    }

    fn reset_if_idle(&self, state: &mut State, effects: &mut Effects) {
        if !state.queues.iter().any(|slot| slot.busy) {
            *state = State::new(&*self.device);
            self.interrupts.set_level(false, effects);
        }
    }
}

/// [`Work`] needs the transport's own `Arc` to defer itself.
impl Work for Transport {
    fn run(self: Arc<Self>) -> Effects {
        self.run_all()
    }
}

impl core::fmt::Debug for Transport {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Transport").field("state", &self.state).finish_non_exhaustive()
    }
}
