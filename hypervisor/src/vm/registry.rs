//! The VMs of a mode.

use super::ledger::Entry;
use super::{Accounts, Ledger, Snapshot, State, Step, VmError, VmId};
use crate::host::Clock;
use crate::sync::{Mutex, RwLock};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// What a VM needs to be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRequest {
    /// Its name, for people.
    pub name: String,
    /// RAM in bytes.
    pub memory: u64,
    /// vCPUs.
    pub vcpus: u32,
}

/// A VM: what is the same in every mode, and `T`, what its mode keeps of it.
///
/// It is a handle to share. One that is held after the VM was destroyed keeps `T` alive and
/// nothing else: the ledger has forgotten it.
#[derive(Debug)]
pub struct Vm<T> {
    id: VmId,
    name: String,
    /// What its mode keeps.
    pub inner: T,
    /// Counters.
    pub accounts: Accounts,
    life: Mutex<Life>,
}

#[derive(Debug)]
struct Life {
    state: State,
    memory: u64,
    vcpus: u32,
    created_ns: u64,
    started_ns: Option<u64>,
    stopped_ns: Option<u64>,
    ran_ns: u64,
    /// How often it was started.
    runs: u64,
    /// Gone with the VM's destruction, whoever still holds a handle.
    entry: Option<Entry>,
}

impl<T> Vm<T> {
    /// Its number.
    pub fn id(&self) -> VmId {
        self.id
    }

    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its state. It may have changed before the caller looks at it.
    pub fn state(&self) -> State {
        self.life.lock().state
    }

    /// What is known of it.
    pub fn snapshot(&self) -> Snapshot {
        let life = self.life.lock();
        Snapshot {
            state: life.state,
            memory: life.memory,
            vcpus: life.vcpus,
            created_ns: life.created_ns,
            started_ns: life.started_ns,
            stopped_ns: life.stopped_ns,
            ran_ns: life.ran_ns,
            exits: self.accounts.exits(),
        }
    }

    /// Checks that its vCPUs may run, and gives the number of the run: how often the VM has been
    /// started. A stop of this run, by another thread right after, is for the mode to deliver.
    ///
    /// # Errors
    /// [`VmError::WrongState`].
    pub fn check_running(&self) -> Result<u64, VmError> {
        self.step(Step::Run, 0)
    }

    /// Takes a step, if the state allows it; gives the number of the run.
    fn step(&self, step: Step, now: u64) -> Result<u64, VmError> {
        self.life.lock().step(self.id, step, now)
    }
}

impl Life {
    fn step(&mut self, id: VmId, step: Step, now: u64) -> Result<u64, VmError> {
        let state = self.state;
        let wrong = VmError::WrongState { id, state, step };
        self.state = state.allows(step).ok_or(wrong)?;
        match step {
            Step::Run => {}
            Step::Start => {
                self.started_ns = Some(now);
                self.runs += 1;
            }
            Step::Stop => {
                self.stopped_ns = Some(now);
                let started = self.started_ns.unwrap_or(now);
                self.ran_ns = self.ran_ns.saturating_add(now.saturating_sub(started));
            }
            Step::Destroy => self.entry = None,
        }
        Ok(self.runs)
    }
}

/// The VMs of a mode.
pub struct Vms<T> {
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    table: RwLock<BTreeMap<VmId, Arc<Vm<T>>>>,
}

impl<T> Vms<T> {
    /// None yet.
    pub fn new(ledger: Arc<Ledger>, clock: Arc<dyn Clock>) -> Self {
        Self { ledger, clock, table: RwLock::new(BTreeMap::new()) }
    }

    /// Enters a VM and builds it with `build`, which is called without a lock held. If that
    /// fails, everything is as before.
    ///
    /// # Errors
    /// If a limit would be passed, or what `build` says.
    pub fn create<E: From<VmError>>(
        &self,
        request: VmRequest,
        build: impl FnOnce(VmId) -> Result<T, E>,
    ) -> Result<Arc<Vm<T>>, E> {
        let entry = self.ledger.enter(request.memory, request.vcpus)?;
        let id = entry.id;
        let life = Life {
            state: State::Created,
            memory: entry.memory,
            vcpus: entry.vcpus,
            created_ns: self.clock.monotonic_ns(),
            started_ns: None,
            stopped_ns: None,
            ran_ns: 0,
            runs: 0,
            entry: Some(entry),
        };
        let vm = Arc::new(Vm {
            id,
            name: request.name,
            inner: build(id)?,
            accounts: Accounts::default(),
            life: Mutex::new(life),
        });
        self.table.write().insert(id, vm.clone());
        Ok(vm)
    }

    /// The VM of this number.
    ///
    /// # Errors
    /// [`VmError::NoSuchVm`].
    pub fn get(&self, id: VmId) -> Result<Arc<Vm<T>>, VmError> {
        self.table.read().get(&id).cloned().ok_or(VmError::NoSuchVm(id))
    }

    /// All of them, by number.
    pub fn all(&self) -> Vec<Arc<Vm<T>>> {
        self.table.read().values().cloned().collect()
    }

    /// Lets a VM's vCPUs run; gives the number of the run that this begins.
    ///
    /// # Errors
    /// [`VmError::NoSuchVm`] and [`VmError::WrongState`].
    pub fn start(&self, id: VmId) -> Result<(Arc<Vm<T>>, u64), VmError> {
        self.step(id, Step::Start)
    }

    /// Lets them run no more; gives the number of the run that this ends.
    ///
    /// # Errors
    /// As [`Vms::start`].
    pub fn stop(&self, id: VmId) -> Result<(Arc<Vm<T>>, u64), VmError> {
        self.step(id, Step::Stop)
    }

    /// The guest has ended this run itself: stops the VM, unless that has been done already or
    /// it was even started again since.
    pub fn end_run(&self, vm: &Vm<T>, run: u64) {
        let now = self.clock.monotonic_ns();
        let mut life = vm.life.lock();
        if life.runs == run {
            // Refused only where somebody else was faster.
            let _ = life.step(vm.id, Step::Stop, now);
        }
    }

    /// Gives everything back, except to who still holds a handle.
    ///
    /// # Errors
    /// As [`Vms::start`].
    pub fn destroy(&self, id: VmId) -> Result<Arc<Vm<T>>, VmError> {
        let (vm, _) = self.step(id, Step::Destroy)?;
        let mut table = self.table.write();
        // After its destruction its number may have been given away again, in theory.
        if table.get(&id).is_some_and(|entry| Arc::ptr_eq(entry, &vm)) {
            table.remove(&id);
        }
        Ok(vm)
    }

    fn step(&self, id: VmId, step: Step) -> Result<(Arc<Vm<T>>, u64), VmError> {
        let vm = self.get(id)?;
        let run = vm.step(step, self.clock.monotonic_ns())?;
        Ok((vm, run))
    }
}

impl<T> fmt::Debug for Vms<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vms").field("usage", &self.ledger.usage()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
