//! What one VM has of the machine: its console, clock, networks and disks, and how it is stopped.

use super::clock::MachineClock;
use super::host::Machine;
use super::type1::VmNotices;
use crate::{terminal, thread, time};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use host_baremetal::console::output::in_pieces;
use host_baremetal::net::port::{Queue, Waker};
use host_baremetal::sched::ThreadId;
use hypervisor::host::{BlockStore, Console, HostError, HostErrorKind, NetPort, Notices, WaitSet};
use hypervisor::memory::GuestSlice;
use hypervisor::modes::hvt::mode::{HvtSession, Kick, Lent, Task};
use hypervisor::sync::Mutex;
use hypervisor::vm::VmId;

/// Interrupts a vCPU, in its guest or where it waits.
#[derive(Default)]
pub struct VcpuKick {
    thread: Mutex<Option<ThreadId>>,
}

impl Kick for VcpuKick {
    fn enter(&self) {
        thread::take_attention();
        *self.thread.lock() = thread::current();
    }

    fn leave(&self) {
        *self.thread.lock() = None;
    }

    fn kick(&self) {
        if let Some(id) = *self.thread.lock() {
            thread::interrupt(id);
        }
    }
}

impl Waker for VcpuKick {
    fn wake(&self) {
        if let Some(id) = *self.thread.lock() {
            thread::unpark(id);
        }
    }
}

/// A VM's side of the machine.
pub struct Session {
    pub(super) machine: Arc<Machine>,
    pub(super) vm: VmId,
    pub(super) kick: Arc<VcpuKick>,
    pub(super) queues: Vec<(u32, Arc<Queue>)>,
}

impl HvtSession for Session {
    fn notices(&self) -> Option<Arc<dyn Notices>> {
        Some(Arc::new(VmNotices(self.vm)))
    }

    fn block(&mut self, path: &str) -> Result<Box<dyn BlockStore>, HostError> {
        self.machine.disk(path, false)
    }

    fn net(
        &mut self,
        handle: u32,
        interface: &str,
        mac: Option<[u8; 6]>,
    ) -> Result<Box<dyn NetPort>, HostError> {
        let own = (self.vm, handle);
        let port = self.machine.connect(own, interface, mac, self.kick.clone())?;
        self.queues.push((handle, port.queue().clone()));
        Ok(Box::new(port))
    }

    fn lend(&mut self) -> Result<Lent, HostError> {
        let wait = Wait { queues: core::mem::take(&mut self.queues) };
        Ok(Lent {
            console: Box::new(VmConsole(self.vm.get())),
            clock: Box::new(MachineClock),
            wait: Box::new(wait),
            kick: self.kick.clone(),
        })
    }

    fn spawn(&self, _: Box<dyn FnOnce() + Send>) -> Result<Box<dyn Task>, HostError> {
        Err(HostError::new(HostErrorKind::Other, "the bare machine has no doorbells"))
    }
}

/// What a VM prints.
pub(super) struct VmConsole(pub(super) u32);

impl Console for VmConsole {
    fn write(&self, text: GuestSlice<'_>) -> Result<(), HostError> {
        in_pieces(text, &mut |piece| terminal::guest(self.0, piece), &mut || {
            // It is slow: others run meanwhile, and a VM that is stopped says no more.
            thread::take_interrupts();
            !thread::has_attention()
        });
        Ok(())
    }
}

struct Wait {
    queues: Vec<(u32, Arc<Queue>)>,
}

impl WaitSet for Wait {
    fn wait(&self, timeout_ns: u64) -> Result<u64, HostError> {
        let end = time::now().saturating_add(timeout_ns);
        loop {
            let filled = self.queues.iter().filter(|(_, queue)| queue.is_filled());
            let set = filled.fold(0, |set, (handle, _)| set | 1 << (handle % 64));
            if set != 0 || time::now() >= end || thread::has_attention() {
                return Ok(set);
            }
            thread::park(Some(end));
        }
    }
}
