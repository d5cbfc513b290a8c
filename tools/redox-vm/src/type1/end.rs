//! The end of a machine from outside: by the keys, or by a signal.
//!
//! It may be asked for at any moment, also while the machine is still being made: then the machine
//! ends as soon as it has started.

use hypervisor::mode::HypervisorMode;
use hypervisor::vm::VmId;
use redox_hvt::tell;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

/// Whom to end, and why it ended.
#[derive(Default)]
pub struct End {
    machine: OnceLock<(Arc<dyn HypervisorMode>, VmId)>,
    signal: AtomicI32,
    wanted: AtomicBool,
    failed: AtomicBool,
}

impl End {
    /// Names the machine.
    pub fn of(&self, mode: Arc<dyn HypervisorMode>, id: VmId) {
        let _ = self.machine.set((mode, id));
    }

    /// Ends it by the wish of the person at the terminal.
    pub fn leave(&self) {
        self.wanted.store(true, SeqCst);
        self.stop();
    }

    /// The machine has been started. Whoever wanted its end before could not end it.
    pub fn started(&self) {
        if self.is_wanted() {
            self.stop();
        }
    }

    /// Whether somebody has asked for the end.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(SeqCst)
    }

    fn stop(&self) {
        if let Some((mode, id)) = self.machine.get() {
            // One that has ended already has.
            let _ = mode.stop_vm(*id);
        }
    }

    /// Ends it because it has no console any more. Whoever calls has said so.
    pub fn by_failure(&self) {
        self.failed.store(true, SeqCst);
        self.leave();
    }

    /// Whether that was the reason.
    pub fn has_failed(&self) -> bool {
        self.failed.load(SeqCst)
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
