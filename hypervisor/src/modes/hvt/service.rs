//! Answers one HVT guest's exits: where a hypercall lands, on every backend and host.
//!
//! The service may run inside the guest's own process or in a kernel's exit path, so it neither
//! allocates nor blocks except in the host's own calls, and its words for a person are
//! [`Line`](crate::vcpu::Line)s. It holds no pointer into guest memory: the caller passes the memory as seen from
//! where the service runs.

use super::hypercall;
use super::reach::Reach;
use super::ring::Ring;
use super::solo5_abi::{HYPERCALL_PIO_BASE, Hypercall, RING_KICK_PIO};
use super::stats::Stats;
use crate::host::{BlockStore, Clock, Console, NetPort, WaitSet};
use crate::memory::{Gpa, GuestMemory, Gva};
use crate::vcpu::{Answer, Ending, ExitHandler, VmEntry, VmExit, line};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

/// A device of the guest's manifest, joined to what the host lends for it.
pub enum Device {
    /// A disk.
    Block(Box<dyn BlockStore>),
    /// A network.
    Net(Box<dyn NetPort>),
}

/// Everything that the host lends one guest.
pub struct Resources {
    /// Where its output goes.
    pub console: Box<dyn Console>,
    /// Its wall clock.
    pub clock: Box<dyn Clock>,
    /// Waits for its networks.
    pub wait: Box<dyn WaitSet>,
    /// Its devices by handle, which is the index in the manifest.
    pub devices: Vec<Option<Device>>,
}

impl Resources {
    /// The disk with this handle.
    pub fn block(&self, handle: u64) -> Option<&dyn BlockStore> {
        match self.device(handle)? {
            Device::Block(store) => Some(&**store),
            Device::Net(_) => None,
        }
    }

    /// The network with this handle.
    pub fn net(&self, handle: u64) -> Option<&dyn NetPort> {
        match self.device(handle)? {
            Device::Net(port) => Some(&**port),
            Device::Block(_) => None,
        }
    }

    fn device(&self, handle: u64) -> Option<&Device> {
        self.devices.get(usize::try_from(handle).ok()?)?.as_ref()
    }
}

/// What the host wants when it interrupts a vCPU.
pub trait HostEvents: Send + Sync {
    /// Called after the vCPU was interrupted; says whether the guest goes on.
    fn interrupted(&self) -> Answer;
}

/// Answers one guest's exits.
pub struct Service {
    resources: Resources,
    /// End of the memory that the guest may name.
    memory_end: u64,
    /// The ring that is served in place, at each doorbell. `None` where a thread serves it.
    ring: Option<Arc<Ring>>,
    stats: Option<&'static Stats>,
    events: Arc<dyn HostEvents>,
}

impl Service {
    /// A service over these resources. `stats`, where given, are kept; they cost two clock
    /// readings for each hypercall.
    pub fn new(
        resources: Resources,
        events: Arc<dyn HostEvents>,
        stats: Option<&'static Stats>,
    ) -> Self {
        Self { resources, memory_end: u64::MAX, ring: None, stats, events }
    }

    /// Refuses hypercalls that name memory from `end` on: there is the ring.
    pub fn end_memory_at(&mut self, end: Gpa) {
        self.memory_end = end.0;
    }

    /// Serves this ring whenever the guest rings its doorbell and thereby leaves.
    pub fn serve_ring(&mut self, ring: Arc<Ring>) {
        self.ring = Some(ring);
    }

    /// What the host lends.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// The counters, where they are kept.
    pub fn stats(&self) -> Option<&'static Stats> {
        self.stats
    }

    fn port_write(&self, port: u16, value: u32, memory: &GuestMemory) -> Answer {
        if port == RING_KICK_PIO
            && let Some(ring) = &self.ring
        {
            return self.doorbell(ring, memory);
        }
        match port.checked_sub(HYPERCALL_PIO_BASE).and_then(Hypercall::from_number) {
            Some(call) => self.hypercall(call, Gpa(value.into()), memory),
            None => bad_port(port),
        }
    }

    fn doorbell(&self, ring: &Ring, memory: &GuestMemory) -> Answer {
        if let Some(stats) = self.stats {
            stats.doorbells.fetch_add(1, Relaxed);
        }
        match ring.process(memory, &self.resources, self.stats) {
            Ok(_) => Answer::Resume(VmEntry::Continue),
            Err(error) => fault(format_args!("{error}")),
        }
    }

    fn hypercall(&self, call: Hypercall, argument: Gpa, memory: &GuestMemory) -> Answer {
        let start = self.stats.map(|stats| (stats, self.resources.clock.monotonic_ns()));
        let reach = Reach::below(self.memory_end, memory);
        let (answer, bytes) = match hypercall::answer(call, argument, reach, &self.resources) {
            Ok(hypercall::Done::Resume { bytes }) => (Answer::Resume(VmEntry::Continue), bytes),
            Ok(hypercall::Done::Halt { status, cookie }) => {
                (Answer::End(Ending::Exit { status, cookie }), 0)
            }
            Err(error) => (fault(format_args!("hypercall {}: {error}", call.name())), 0),
        };
        if let Some((stats, start)) = start {
            let now = self.resources.clock.monotonic_ns();
            stats.count(call, bytes, now.saturating_sub(start));
        }
        answer
    }

    fn count_exit(&self, exit: &VmExit) {
        let Some(stats) = self.stats else { return };
        match exit {
            VmExit::Io { .. } => stats.io_exits.fetch_add(1, Relaxed),
            _ => stats.other_exits.fetch_add(1, Relaxed),
        };
        if stats.first_exit_ns.load(Relaxed) == 0 {
            stats.first_exit_ns.store(self.resources.clock.monotonic_ns(), Relaxed);
        }
    }
}

impl ExitHandler for Service {
    fn handle(&self, exit: VmExit, memory: &GuestMemory) -> Answer {
        self.count_exit(&exit);
        match exit {
            VmExit::Io { port, size: 4, write: Some(value) } => {
                self.port_write(port, value, memory)
            }
            VmExit::Io { port, .. } => bad_port(port),
            VmExit::Mmio { gpa, .. } if is_memory(gpa, memory) => fault(format_args!(
                "access to guest memory at {gpa:#x} by an instruction that the virtual processor \
                 cannot carry out there: where KVM only emulates, use another backend"
            )),
            VmExit::Mmio { gpa, .. } => {
                fault(format_args!("access to guest address {gpa:#x}, where there is no memory"))
            }
            VmExit::ReadMsr { index } | VmExit::WriteMsr { index, .. } => fault(format_args!(
                "access to model-specific register {index:#x}, which a unikernel does not have"
            )),
            VmExit::Hypercall { number, .. } => fault(format_args!(
                "hypercall {number:#x} by vmcall: a unikernel's are writes to ports"
            )),
            VmExit::InterruptWindow | VmExit::EndOfInterrupt { .. } => {
                Answer::Resume(VmEntry::Continue)
            }
            VmExit::Halt => fault(format_args!(
                "the guest executed hlt and would sleep for ever: a unikernel has no interrupts"
            )),
            VmExit::Shutdown { rip } => triple_fault(rip),
            VmExit::MemoryFault { rip, address: None } => {
                fault(format_args!("host/guest translation fault: rip={rip:#x}"))
            }
            VmExit::MemoryFault { rip, address: Some(gpa) } => {
                fault(format_args!("host/guest translation fault: rip={rip:#x} address={gpa:#x}"))
            }
            VmExit::Interrupted => self.events.interrupted(),
            VmExit::Ended(ending) => Answer::End(*ending),
        }
    }
}

/// Whether there is memory at this address, whatever the guest may do there.
fn is_memory(gpa: Gpa, memory: &GuestMemory) -> bool {
    memory.blocks().iter().any(|block| block.range().contains(&gpa.0))
}

fn bad_port(port: u16) -> Answer {
    fault(format_args!("Invalid guest port access: port={port:#x}"))
}

/// What it is, as people who meet one have nothing else to go by.
fn triple_fault(rip: Option<Gva>) -> Answer {
    const WHAT: &str = "an exception that no handler could take: see the guest's IDT, stacks and \
                        page tables";
    match rip {
        Some(rip) => fault(format_args!("triple fault: rip={rip:#x}: {WHAT}")),
        None => fault(format_args!("triple fault: {WHAT}; this host cannot tell where")),
    }
}

fn fault(text: core::fmt::Arguments<'_>) -> Answer {
    Answer::End(Ending::Fault(line(text)))
}
