//! The thread that serves a guest's network ring, where the backend has doorbells.

use crate::{FAILURE, tell};
use hypervisor::modes::hvt::stats::Stats;
use hypervisor::modes::hvt::tender::{Guest, RingThread};
use hypervisor::vcpu::BackendVm;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// A ring's thread at work.
pub struct Serving {
    ring: RingThread,
    thread: JoinHandle<()>,
}

/// Bytes of the thread's stack: it calls nothing deep.
const STACK: usize = 128 << 10;

/// Starts the thread. Without one the guest's submissions would go nowhere, so it has to start.
///
/// A lie in the ring ends the tender from there: the vCPU may be deep in the guest.
pub fn serve<V: BackendVm>(
    ring: RingThread,
    guest: &Guest<V>,
    stats: Option<&'static Stats>,
) -> Result<Serving, String> {
    let memory = guest.vm.memory().clone();
    let service = Arc::clone(&guest.service);
    let mine = RingThread { ring: Arc::clone(&ring.ring), bell: Arc::clone(&ring.bell) };
    let work = move || {
        if let Err(lie) = mine.ring.serve(&*mine.bell, &memory, service.resources(), stats) {
            tell::warn(lie);
            std::process::exit(FAILURE);
        }
    };
    let thread = Builder::new()
        .stack_size(STACK)
        .spawn(work)
        .map_err(|e| format!("no thread for the network ring: {e}; use --no-net-ring"))?;
    Ok(Serving { ring, thread })
}

impl Serving {
    /// Stops the thread: the guest's memory may then go.
    pub fn stop(self) {
        self.ring.ring.stop(&*self.ring.bell);
        let _ = self.thread.join();
    }
}
