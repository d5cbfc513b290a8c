//! The machine as Type 1 mode's host: serial lines, disks, networks and vCPU threads of whole
//! machines.

use super::clock::MachineClock;
use super::host::{Host, Machine};
use super::session::{VcpuKick, VmConsole};
use crate::log::warning;
use crate::{terminal, thread};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use host_baremetal::cpus::CpuSet;
use host_baremetal::net::port::Waker;
use host_baremetal::sched::ThreadId;
use hypervisor::host::{Blob, BlockStore, HostError, HostErrorKind, NetPort, Notices};
use hypervisor::modes::hvt::mode::Kick;
use hypervisor::modes::type1::host::{
    Arrival, ConsoleInput, Lent, Type1Host, Type1Session, VcpuThread,
};
use hypervisor::sync::Mutex;
use hypervisor::vm::VmId;

impl Type1Host for Host {
    fn open(&self, path: &str) -> Result<Box<dyn Blob>, HostError> {
        self.0.files.open(path)
    }

    fn session(&self, vm: VmId, name: &str) -> Result<Box<dyn Type1Session>, HostError> {
        terminal::add_guest(vm.get(), name);
        Ok(Box::new(Session { machine: self.0.clone(), vm, arrivals: Vec::new() }))
    }
}

/// A VM's side of the machine.
struct Session {
    machine: Arc<Machine>,
    vm: VmId,
    arrivals: Vec<Arc<Arrivals>>,
}

impl Type1Session for Session {
    /// The device itself refuses writes to a disk that is read-only.
    fn disk(&mut self, path: &str, read_only: bool) -> Result<Box<dyn BlockStore>, HostError> {
        self.machine.disk(path, read_only)
    }

    fn net(
        &mut self,
        index: u32,
        interface: Option<&str>,
        mac: Option<[u8; 6]>,
        arrived: Arc<dyn Arrival>,
    ) -> Result<Box<dyn NetPort>, HostError> {
        let error = |kind, what| HostError::new(kind, what);
        let name = interface.ok_or(error(
            HostErrorKind::Other,
            "a network of the bare machine has a name: write interface = \"NAME\"",
        ))?;
        let arrivals = Arc::new(Arrivals::default());
        let own = (self.vm, index);
        let port = self.machine.connect(own, name, mac, arrivals.clone())?;
        let serving = arrivals.clone();
        thread::spawn(CpuSet::ALL, move || serving.serve(&*arrived))
            .ok_or(error(HostErrorKind::Other, "no memory for a network's thread"))?;
        self.arrivals.push(arrivals);
        Ok(Box::new(port))
    }

    fn lend(&mut self, vcpus: u32, input: Arc<dyn ConsoleInput>) -> Result<Lent, HostError> {
        self.machine.inputs.lock().insert(self.vm, input);
        let vcpu = |_| -> Arc<dyn VcpuThread> { Arc::new(VcpuKick::default()) };
        Ok(Lent {
            console: Box::new(VmConsole(self.vm.get())),
            notices: Arc::new(VmNotices(self.vm)),
            clock: Arc::new(MachineClock),
            vcpus: (0..vcpus).map(vcpu).collect(),
        })
    }
}

/// A VM's lines among the image's own messages.
pub(super) struct VmNotices(pub(super) VmId);

impl Notices for VmNotices {
    fn notice(&self, text: core::fmt::Arguments<'_>) {
        warning!("VM {}: {text}", self.0);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let input = self.machine.inputs.lock().remove(&self.vm);
        drop(input);
        self.arrivals.iter().for_each(|arrivals| arrivals.end());
    }
}

/// Frames that arrive are taken by a thread of their own: whoever delivers them holds locks.
#[derive(Default)]
struct Arrivals {
    /// That thread, once it runs.
    thread: Mutex<Option<ThreadId>>,
    ended: AtomicBool,
}

impl Arrivals {
    fn serve(&self, arrived: &dyn Arrival) {
        *self.thread.lock() = thread::current();
        while !self.ended.load(Ordering::Acquire) {
            arrived.arrived();
            thread::park(None);
        }
        *self.thread.lock() = None;
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.wake();
    }
}

impl Waker for Arrivals {
    fn wake(&self) {
        if let Some(id) = *self.thread.lock() {
            thread::unpark(id);
        }
    }
}

impl VcpuThread for VcpuKick {
    fn enter(&self) {
        Kick::enter(self);
    }

    fn leave(&self) {
        Kick::leave(self);
    }

    fn park(&self, until_ns: Option<u64>) {
        // A kick that has come already is used up by not waiting at all.
        if !thread::take_attention() {
            thread::park(until_ns);
            thread::take_attention();
        }
    }

    fn kick(&self) {
        Kick::kick(self);
    }
}
