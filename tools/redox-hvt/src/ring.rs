//! The thread that serves a guest's network ring, where the backend has doorbells.

use crate::{FAILURE, tell};
use hypervisor::modes::hvt::stats::Stats;
use hypervisor::modes::hvt::tender::{Guest, RingThread};
use hypervisor::vcpu::BackendVm;
use std::sync::{Arc, Barrier};
use std::thread::Builder;

/// Bytes of the thread's stack: it calls nothing deep.
const STACK: usize = 128 << 10;

/// Starts the thread; it ends with the process. Without one the guest's submissions would go nowhere, so it has to start.
///
/// A lie in the ring ends the tender from there: the vCPU may be deep in the guest.
pub fn serve<V: BackendVm>(
    ring: RingThread,
    guest: &Guest<V>,
    stats: Option<&'static Stats>,
) -> Result<(), String> {
    let memory = guest.vm.memory().clone();
    let service = Arc::clone(&guest.service);
    // The filter that comes next allows nothing of what a thread does to start.
    let started = Arc::new(Barrier::new(2));
    let here = Arc::clone(&started);
    let work = move || {
        here.wait();
        if let Err(lie) = ring.ring.serve(&*ring.bell, &memory, service.resources(), stats) {
            tell::warn(lie);
            std::process::exit(FAILURE);
        }
    };
    Builder::new()
        .stack_size(STACK)
        .spawn(work)
        .map_err(|e| format!("no thread for the network ring: {e}; use --no-net-ring"))?;
    started.wait();
    Ok(())
}
