//! One vCPU and its loop, the same for all backends.
//!
//! Each turn: what was asked for (the machine's end or reset, INIT, start-up, NMI) is done; timers
//! that are due are served; the vCPU's interrupt is injected or a window for it requested; then it
//! runs, or its thread parks. [`super::apic::Inbox`] says why nothing is missed in between.
//!
//! Where the backend has the local APICs, it also has INIT, start-up and halts; what is left here
//! are devices, the 8259 pair's interrupt, and the board's timers.

mod answer;
mod deliver;
mod obey;
mod states;

use super::apic::{Inbox, Instant, LocalApic, Requests};
use super::board::Power;
use super::machine::Machine;
use super::msr::Msrs;
use super::paravirt::Paravirt;
use crate::host::Clock;
use crate::vcpu::machine::{MachineVcpu, MachineVm};
use crate::vcpu::{BackendError, BackendVcpu, BackendVm, Ending, VmEntry};
use crate::vm::{Accounts, Exits};
use alloc::sync::Arc;
use states::wait_for_startup;

/// A vCPU of this kind of VM.
type VcpuOf<V> = <V as BackendVm>::Vcpu;

/// What a processor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    /// It runs its guest.
    Running,
    /// It waits for an interrupt.
    Halted,
    /// It waits for a start-up message after INIT.
    Waiting,
}

/// How a turn of the loop goes on.
enum Next {
    /// Into the guest.
    Enter,
    /// From the beginning.
    Again,
    /// The machine has ended.
    End(Ending),
}

/// One vCPU of a machine.
///
/// The backend's vCPU is dropped before the machine, whose memory it uses.
pub struct Processor<V: BackendVm> {
    vcpu: VcpuOf<V>,
    index: u32,
    /// Where the local APICs are the core's.
    apic: Option<LocalApic>,
    msrs: Msrs,
    paravirt: Paravirt,
    activity: Activity,
    /// A wake-up from a halt that came before the halt.
    unhalted: bool,
    /// The answer to its last exit.
    entry: VmEntry,
    /// The deadline that the vCPU was told.
    armed: Option<u64>,
    /// A window was requested.
    window: bool,
    /// The task priority for which an interrupt waits, as the vCPU was told.
    watched: Option<u8>,
    /// Time may have come for a timer.
    due: bool,
    /// Something is to be done before the next entry.
    busy: bool,
    /// The resets that it has followed.
    generation: u64,
    /// It has come for a reset.
    arrived: bool,
    inbox: Arc<Inbox>,
    machine: Arc<Machine<V>>,
}

/// This moment, for a local APIC: host's clock and guest's TSC.
struct Now<'a, C> {
    clock: &'a dyn Clock,
    vcpu: &'a C,
    frequency: u64,
}

impl<C: MachineVcpu> Instant for Now<'_, C> {
    fn ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    fn cycles(&self) -> u64 {
        self.vcpu.cycles()
    }

    fn frequency(&self) -> u64 {
        self.frequency
    }
}

impl<V: MachineVm> Processor<V> {
    /// Number `index` of a machine that has been loaded. `vcpu` is in its first state.
    pub fn new(machine: Arc<Machine<V>>, index: u32, vcpu: VcpuOf<V>) -> Option<Self> {
        let inbox = machine.bus.inboxes().get(usize::try_from(index).ok()?)?.clone();
        let local = machine.local_apics;
        let bits = machine.address_bits;
        let apic = local.then(|| LocalApic::new(index, bits, machine.bus.clone(), inbox.clone()));
        Some(Self {
            vcpu,
            index,
            apic,
            msrs: Msrs::default(),
            paravirt: Paravirt::default(),
            activity: wait_for_startup(index, local),
            unhalted: false,
            entry: VmEntry::Continue,
            armed: None,
            window: false,
            watched: None,
            due: true,
            busy: true,
            generation: machine.gathering.generation(),
            arrived: false,
            inbox,
            machine,
        })
    }

    /// Its number.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Where the machine's end is asked for.
    pub fn power(&self) -> &Power {
        &self.machine.board.power
    }

    /// Runs until the machine ends, on the vCPU's own thread.
    ///
    /// # Errors
    /// If the backend fails.
    pub fn run(&mut self, accounts: &Accounts) -> Result<Ending, BackendError> {
        self.machine.gathering.join();
        self.inbox.thread().enter();
        self.busy = true;
        let mut exits = Exits::default();
        let mut many = 0u32;
        let ending = loop {
            match self.turn(&mut exits) {
                Ok(None) => {}
                Ok(Some(ending)) => break Ok(ending),
                Err(error) => break Err(error),
            }
            // Counters of all vCPUs: not at every exit.
            many += 1;
            if many >= 256 {
                many = 0;
                self.account(&core::mem::take(&mut exits), accounts);
            }
        };
        self.account(&exits, accounts);
        self.inbox.thread().leave();
        let arrived = core::mem::take(&mut self.arrived);
        self.machine.gathering.part(self.generation, arrived);
        ending
    }

    /// Adds these exits, and those that the backend has answered itself.
    fn account(&mut self, exits: &Exits, accounts: &Accounts) {
        accounts.add(exits);
        if let Some(answered) = self.vcpu.take_answered() {
            accounts.add(&answered);
        }
    }

    /// One turn of the loop; gives the end if it has come.
    ///
    /// Most exits are accesses to devices that change nothing here: then there is nothing to do
    /// before the next entry. Whatever does change something is a request in the inbox, or has set
    /// `busy`.
    fn turn(&mut self, exits: &mut Exits) -> Result<Option<Ending>, BackendError> {
        if self.busy || !self.inbox.is_quiet() || self.machine.board.devices.has_work() {
            match self.prepare()? {
                Next::Enter => {}
                Next::Again => return Ok(None),
                Next::End(ending) => return Ok(Some(ending)),
            }
        }
        if !self.inbox.enter() {
            return Ok(None);
        }
        let exit = self.vcpu.run(core::mem::replace(&mut self.entry, VmEntry::Continue));
        self.inbox.leave();
        match &exit {
            Ok(exit) => {
                exits.count(exit);
                self.answer(exit);
            }
            Err(error) => return Err(error.clone()),
        }
        Ok(None)
    }

    /// Everything that may have to be done before an entry.
    fn prepare(&mut self) -> Result<Next, BackendError> {
        self.sync();
        // What is asked for after a reset is for the processor that has followed it.
        let is_reset = || self.generation != self.machine.gathering.generation();
        if !self.arrived && !is_reset() {
            self.take_requests()?;
        }
        // After the requests, whose taking may have taken the word of this; and in this order: a
        // reset counts itself before its request is withdrawn.
        let asked = self.machine.board.power.asked();
        if asked || self.generation != self.machine.gathering.generation() {
            self.busy = true;
            return Ok(self.obey()?.map_or(Next::Again, Next::End));
        }
        if self.due {
            self.serve_timers();
        }
        let board = &self.machine.board;
        if let Some(request) = board.devices.work() {
            board.request(request);
            return Ok(Next::Again);
        }
        if self.activity != Activity::Running && !self.wakes() {
            self.busy = true;
            self.park();
            return Ok(Next::Again);
        }
        self.activity = Activity::Running;
        let waits = self.deliver();
        let held = self.arm();
        self.busy = waits || held;
        Ok(Next::Enter)
    }

    /// Does what others have asked for.
    fn take_requests(&mut self) -> Result<(), BackendError> {
        let (requests, startup) = self.inbox.take();
        if requests.is_empty() {
            return Ok(());
        }
        // Whatever it is, a timer may be due.
        let Some(apic) = &mut self.apic else {
            self.due = true;
            return Ok(());
        };
        if requests.contains(Requests::VECTORS) {
            apic.accept();
        }
        if requests.contains(Requests::LOOK) {
            self.due = true;
        }
        if requests.contains(Requests::UNHALT) {
            self.unhalted = true;
        }
        if requests.contains(Requests::INIT) {
            self.init()?;
        }
        if requests.contains(Requests::STARTUP) {
            self.start_up(startup)?;
        }
        for _ in 0..Inbox::nmis(requests) {
            self.raise_nmi();
        }
        Ok(())
    }

    /// Serves this vCPU's timer, and by the first vCPU the board's.
    fn serve_timers(&mut self) {
        self.due = false;
        let now = self.machine.clock().monotonic_ns();
        if let Some(apic) = &mut self.apic {
            apic.expire(now);
        }
        if self.index == 0 {
            let board = &self.machine.board;
            board.timers.serve(now, |effects| board.apply(effects));
        }
    }

    /// The next moment at which something is due here.
    fn deadline(&self) -> Option<u64> {
        let own = self.apic.as_ref().and_then(LocalApic::deadline);
        let board = &self.machine.board;
        // Deferred work is done before the next entry, so the guest is left at once for it.
        let work = board.devices.has_work().then_some(0);
        let board = if self.index == 0 { board.timers.next() } else { None };
        [own, board, work].into_iter().flatten().min()
    }

    /// Waits. Where work is left it does not, but its thread gives way: a driver can make work that
    /// never ends.
    fn park(&mut self) {
        let deadline = self.deadline();
        if self.inbox.enter() {
            self.inbox.thread().park(deadline);
            self.inbox.leave();
        }
        self.due = true;
    }
}

fn now<'a, V: MachineVm>(machine: &'a Machine<V>, vcpu: &'a VcpuOf<V>) -> Now<'a, VcpuOf<V>> {
    Now { clock: machine.clock(), vcpu, frequency: machine.frequency }
}

#[cfg(test)]
mod tests;
