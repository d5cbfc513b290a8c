//! The end of a machine from outside: by the keys, or by a signal.

use hypervisor::mode::HypervisorMode;
use hypervisor::vm::VmId;
use redox_hvt::tell;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Whom to end, and why it ended.
#[derive(Default)]
pub struct End {
    machine: OnceLock<(Arc<dyn HypervisorMode>, VmId)>,
    signal: AtomicI32,
}

impl End {
    /// Names the machine.
    pub fn of(&self, mode: Arc<dyn HypervisorMode>, id: VmId) {
        let _ = self.machine.set((mode, id));
    }

    /// Ends it by the wish of the person at the terminal.
    pub fn leave(&self) {
        if let Some((mode, id)) = self.machine.get() {
            // One that has ended already has.
            let _ = mode.stop_vm(*id);
        }
    }

    /// Ends it by a signal.
    pub fn by_signal(&self, signal: i32) {
        self.signal.store(signal, Relaxed);
        tell::hurry();
        self.leave();
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        Some(self.signal.load(Relaxed)).filter(|&signal| signal != 0)
    }
}
