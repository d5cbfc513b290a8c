//! How a VM is stopped from outside of its vCPU's thread.

use super::host::Kick;
use crate::modes::hvt::service::HostEvents;
use crate::sync::Mutex;
use crate::vcpu::{Answer, Ending, Line, VmEntry};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

/// Asks a vCPU to end: for whoever stops the VM, and for its ring's thread.
pub(super) struct Control {
    stop: AtomicBool,
    /// What the guest did wrong where its vCPU did not see it. A leaf lock.
    fault: Mutex<Option<Line>>,
    pub(super) kick: Arc<dyn Kick>,
}

impl Control {
    pub(super) fn new(kick: Arc<dyn Kick>) -> Self {
        Self { stop: AtomicBool::new(false), fault: Mutex::new(None), kick }
    }

    /// The VM is to stop.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.kick.kick();
    }

    /// The VM is to start again.
    pub(super) fn forget_stop(&self) {
        self.stop.store(false, Ordering::Release);
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
        self.stop.load(Ordering::Acquire).then_some(Ending::Interrupted)
    }
}

impl HostEvents for Control {
    fn interrupted(&self) -> Answer {
        self.ending().map_or(Answer::Resume(VmEntry::Continue), Answer::End)
    }
}
