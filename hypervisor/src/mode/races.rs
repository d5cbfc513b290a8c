//! For tests: a VM that is started and stopped by two threads at once, while a third runs its vCPU.

use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// How a vCPU's run came back.
pub enum Ran {
    /// It was stopped.
    Stopped,
    /// The VM was not running.
    Refused,
}

/// Stands where one thread may overtake another, so that it happens often enough to be seen.
pub fn let_others_in() {
    (0..4).for_each(|_| thread::yield_now());
}

/// Does it so often. `start` must succeed; `stop` says whether it stopped the VM, which it cannot
/// before the start. `run` runs the vCPU of a guest that never ends: after each stop it has to come
/// back, whichever of the three was first, or this never does.
pub fn start_and_stop(
    rounds: usize,
    start: impl Fn() + Sync,
    stop: impl Fn() -> bool + Sync,
    mut run: impl FnMut() -> Ran,
) {
    for _ in 0..rounds {
        let (stopped, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(&start);
            scope.spawn(|| {
                // A run may also find the stop before its own, and end by that.
                while !stop() && !ended.load(SeqCst) {
                    thread::yield_now();
                }
                stopped.store(true, SeqCst);
            });
            // Looked at first: a run that is refused after the stop is the last one.
            loop {
                let is_over = stopped.load(SeqCst);
                match run() {
                    Ran::Stopped => {
                        ended.store(true, SeqCst);
                        break;
                    }
                    Ran::Refused if is_over => break,
                    Ran::Refused => thread::yield_now(),
                }
            }
        });
    }
}
