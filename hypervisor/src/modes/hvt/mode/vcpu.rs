//! The one vCPU of a unikernel.

use super::host::{HvtSession, Task};
use super::{HvtError, Inner, Ready};
use crate::memory::GuestMemory;
use crate::mode::{LendError, ModeError, Vcpu, VcpuExit, VcpuId};
use crate::modes::hvt::service::Service;
use crate::modes::hvt::solo5_abi::{HYPERCALL_PIO_BASE, Hypercall};
use crate::modes::hvt::tender::{Guest, RingThread};
use crate::vcpu::{Answer, Backend, BackendVm, ExitHandler, VmExit, line, run};
use crate::vm::{Accounts, Cause, Exits, Vm, VmId, Vms};
use alloc::boxed::Box;
use alloc::sync::Arc;

/// A unikernel's vCPU, which owns its guest.
///
/// Fields are dropped in order, after [`Drop`] has ended the ring's thread: that thread uses the
/// guest's memory.
pub(super) struct HvtVcpu<B: Backend> {
    guest: Guest<B::Vm>,
    /// The ring's thread, once the vCPU has run.
    ring: Option<Serving>,
    session: Box<dyn HvtSession>,
    vm: Arc<Vm<Inner<B>>>,
    vms: Arc<Vms<Inner<B>>>,
    /// It ended by itself or by its fault, and cannot go on.
    over: bool,
}

struct Serving {
    ring: RingThread,
    task: Box<dyn Task>,
}

impl<B: Backend> HvtVcpu<B> {
    pub(super) fn new(vm: Arc<Vm<Inner<B>>>, vms: Arc<Vms<Inner<B>>>, ready: Ready<B>) -> Self {
        let Ready { guest, session } = ready;
        Self { guest, ring: None, session, vm, vms, over: false }
    }

    /// Begins the ring's thread, if the guest has a ring that wants one.
    fn serve_ring(&mut self) -> Result<(), HvtError>
    where
        B: 'static,
    {
        let Some(ring) = self.guest.ring.take() else { return Ok(()) };
        let service = self.guest.service.clone();
        let memory = self.guest.vm.memory().clone();
        let control = self.vm.inner.control.clone();
        let (serve, bell) = (ring.ring.clone(), ring.bell.clone());
        let work = move || {
            if let Err(error) = serve.serve(&*bell, &memory, service.resources(), None) {
                control.fault(line(format_args!("{error}")));
            }
        };
        let task = self.session.spawn(Box::new(work)).map_err(LendError::Session)?;
        self.ring = Some(Serving { ring, task });
        Ok(())
    }

    fn enter(&mut self) -> Result<VcpuExit, ModeError> {
        let control = &self.vm.inner.control;
        control.kick.enter();
        // A stop since the VM was started was kicked before there was anybody to kick.
        let ending = match control.ending() {
            Some(ending) => Ok(ending),
            None => {
                let handler =
                    Counting { service: &self.guest.service, accounts: &self.vm.accounts };
                run(&mut self.guest.vcpu, &handler, self.guest.vm.memory())
            }
        };
        control.kick.leave();
        Ok(ending?)
    }
}

impl<B: Backend + 'static> Vcpu for HvtVcpu<B>
where
    B::Vm: 'static,
{
    fn vm(&self) -> VmId {
        self.vm.id()
    }

    fn id(&self) -> VcpuId {
        VcpuId(0)
    }

    fn run(&mut self) -> Result<VcpuExit, ModeError> {
        let run = self.vm.check_running()?;
        if self.over {
            return Err(ModeError::build(HvtError::Over));
        }
        self.serve_ring().map_err(ModeError::build)?;
        self.vm.inner.control.begin(run);
        let ending = self.enter();
        self.over = !matches!(ending, Ok(VcpuExit::Interrupted));
        self.vms.end_run(&self.vm, run);
        ending
    }
}

impl<B: Backend> Drop for HvtVcpu<B> {
    fn drop(&mut self) {
        if let Some(Serving { ring, task }) = self.ring.take() {
            ring.ring.stop(&*ring.bell);
            task.join();
        }
    }
}

/// Counts exits. Those that a backend answers in a process beside the guest do not come here.
struct Counting<'a> {
    service: &'a Service,
    accounts: &'a Accounts,
}

impl ExitHandler for Counting<'_> {
    fn handle(&self, exit: VmExit, memory: &GuestMemory) -> Answer {
        match exit {
            VmExit::Io { port, .. } => match port.checked_sub(HYPERCALL_PIO_BASE) {
                Some(number) if Hypercall::from_number(number).is_some() => {
                    self.accounts.count_call(number.into());
                }
                _ => self.accounts.count(Cause::Io),
            },
            ref exit => self.accounts.count(Cause::from(exit)),
        }
        self.service.handle(exit, memory)
    }

    fn answered(&self, exits: &Exits) {
        self.accounts.add(exits);
    }
}
