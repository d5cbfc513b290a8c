//! How a VM is stopped from outside of its vCPU's thread.

use super::host::Kick;
use crate::modes::hvt::service::HostEvents;
use crate::sync::Mutex;
use crate::vcpu::{Answer, Ending, Line, VmEntry};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

/// Asks a vCPU to end: for whoever stops the VM, and for its ring's thread.
pub(super) struct Control {
    /// The latest run that was stopped.
    stopped: AtomicU64,
    /// The run that the vCPU is in.
    run: AtomicU64,
    /// What the guest did wrong where its vCPU did not see it. A leaf lock.
    fault: Mutex<Option<Line>>,
    pub(super) kick: Arc<dyn Kick>,
}

impl Control {
    pub(super) fn new(kick: Arc<dyn Kick>) -> Self {
        Self { stopped: AtomicU64::new(0), run: AtomicU64::new(0), fault: Mutex::new(None), kick }
    }

    /// Ends this run of the VM.
    pub(super) fn stop(&self, run: u64) {
        self.stopped.fetch_max(run, Ordering::AcqRel);
        self.kick.kick();
    }

    /// The vCPU begins this run.
    pub(super) fn begin(&self, run: u64) {
        self.run.store(run, Ordering::Release);
    }

    /// The guest did something that ends it. The first such thing counts.
    pub(super) fn fault(&self, line: Line) {
        self.fault.lock().get_or_insert(line);
        self.kick.kick();
    }

    /// How the guest is to end, if it is.
    pub(super) fn ending(&self) -> Option<Ending> {
        if let Some(line) = *self.fault.lock() {
            return Some(Ending::Fault(line));
        }
        let stopped = self.stopped.load(Ordering::Acquire);
        (stopped >= self.run.load(Ordering::Acquire)).then_some(Ending::Interrupted)
    }
}

impl HostEvents for Control {
    fn interrupted(&self) -> Answer {
        self.ending().map_or(Answer::Resume(VmEntry::Continue), Answer::End)
    }
}
