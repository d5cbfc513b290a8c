//! The thread that serves a guest's network ring, where the backend has doorbells.

use crate::{FAILURE, tell};
use host_linux::confine::Rule;
use hypervisor::modes::hvt::stats::Stats;
use hypervisor::modes::hvt::tender::{Guest, RingThread};
use hypervisor::vcpu::BackendVm;
use std::sync::{Arc, Barrier};
use std::thread::Builder;

/// A ring's thread at work.
pub struct Serving {
    ring: RingThread,
    drained: Arc<Barrier>,
}

/// Bytes of the thread's stack: it calls nothing deep.
const STACK: usize = 128 << 10;

/// Starts the thread, which lasts as long as the process. Without one the guest's submissions
/// would go nowhere, so it has to start.
///
/// A lie in the ring ends the tender from there: the vCPU may be deep in the guest.
pub fn serve<V: BackendVm>(
    ring: RingThread,
    guest: &Guest<V>,
    stats: Option<&'static Stats>,
) -> Result<Serving, String> {
    let memory = guest.vm.memory().clone();
    let service = Arc::clone(&guest.service);
    // The filter that comes next allows nothing of what a thread does to start.
    let started = Arc::new(Barrier::new(2));
    let here = Arc::clone(&started);
    let drained = Arc::new(Barrier::new(2));
    let done = Arc::clone(&drained);
    let mine = RingThread { ring: Arc::clone(&ring.ring), bell: Arc::clone(&ring.bell) };
    let work = move || {
        here.wait();
        if let Err(lie) = mine.ring.serve(&*mine.bell, &memory, service.resources(), stats) {
            tell::warn(lie);
            std::process::exit(FAILURE);
        }
        done.wait();
        // A thread's end takes system calls that nothing else here needs.
        loop {
            std::thread::park();
        }
    };
    Builder::new()
        .stack_size(STACK)
        .spawn(work)
        .map_err(|e| format!("no thread for the network ring: {e}; use --no-net-ring"))?;
    started.wait();
    Ok(Serving { ring, drained })
}

impl Serving {
    /// The system calls on the doorbell.
    pub fn rules(&self) -> Vec<Rule> {
        let Some(bell) = self.ring.bell.descriptor() else { return Vec::new() };
        vec![
            Rule::on_fd(libc::SYS_read, bell, "the ring's doorbell"),
            Rule::on_fd(libc::SYS_write, bell, "wake the ring's thread at the guest's end"),
        ]
    }

    /// Comes back when everything that the guest has submitted is served.
    pub fn drain(self) {
        self.ring.ring.stop(&*self.ring.bell);
        self.drained.wait();
    }
}
