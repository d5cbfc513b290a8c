//! What a guest has asked for: counters that any thread or process may read while it runs.
//!
//! The counters are plain atomics in `repr(C)`, so that they can lie in memory which a guest's
//! process shares with its supervisor. A reader must then take them for what they are: the
//! guest's own word about itself.

use super::solo5_abi::Hypercall;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one kind of hypercall.
#[derive(Debug, Default)]
#[repr(C)]
pub struct CallStats {
    /// How often it was made.
    pub calls: AtomicU64,
    /// Bytes of data moved by it.
    pub bytes: AtomicU64,
    /// Nanoseconds spent in answering it, waiting included.
    pub nanoseconds: AtomicU64,
}

/// Counters of one guest.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Stats {
    calls: [CallStats; Hypercall::ALL.len()],
    /// Monotonic time of the first exit, in nanoseconds; 0 before it.
    pub first_exit_ns: AtomicU64,
    /// Port exits, hypercalls and doorbells included.
    pub io_exits: AtomicU64,
    /// Exits that ended the guest or were for the host: faults, halts, interruptions.
    pub other_exits: AtomicU64,
    /// Doorbells of the network ring that left the guest.
    pub doorbells: AtomicU64,
    /// Frames sent through the network ring.
    pub ring_writes: AtomicU64,
    /// Receptions asked for through the network ring.
    pub ring_reads: AtomicU64,
    /// Bytes moved through the network ring.
    pub ring_bytes: AtomicU64,
}

impl Stats {
    /// The counters of one kind of hypercall.
    pub fn call(&self, call: Hypercall) -> &CallStats {
        &self.calls[call as usize - 1]
    }

    pub(super) fn count(&self, call: Hypercall, bytes: u64, nanoseconds: u64) {
        let stats = self.call(call);
        stats.calls.fetch_add(1, Relaxed);
        stats.bytes.fetch_add(bytes, Relaxed);
        stats.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }
}
