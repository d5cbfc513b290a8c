//! Whether somebody else has put a system call filter around this process.

use core::sync::atomic::{AtomicU32, Ordering};

/// How many calls an outer filter has refused so far. `redox-hvt`'s first instructions install
/// the handler that counts.
pub static REFUSED: AtomicU32 = AtomicU32::new(0);

/// Whether the process runs under a filter that somebody else has put around it.
pub fn is_filtered_outside() -> bool {
    REFUSED.load(Ordering::Relaxed) != 0
}
