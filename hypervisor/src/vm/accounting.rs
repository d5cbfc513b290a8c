//! What one VM used.

use core::sync::atomic::{AtomicU64, Ordering};

/// Counters of a VM, which its vCPUs add to without a lock.
#[derive(Debug, Default)]
pub struct Accounts {
    exits: AtomicU64,
}

impl Accounts {
    /// Counts exits.
    pub fn add_exits(&self, count: u64) {
        self.exits.fetch_add(count, Ordering::Relaxed);
    }

    /// Exits so far.
    pub fn exits(&self) -> u64 {
        self.exits.load(Ordering::Relaxed)
    }
}

/// What is known of a VM at one moment. Times are those of the clock that the registry was given,
/// in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Its state.
    pub state: super::State,
    /// RAM in bytes.
    pub memory: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// When it was created.
    pub created_ns: u64,
    /// When it was last started.
    pub started_ns: Option<u64>,
    /// When it was last stopped.
    pub stopped_ns: Option<u64>,
    /// How long it was running, in all; without the present run.
    pub ran_ns: u64,
    /// Exits of all vCPUs.
    pub exits: u64,
}
