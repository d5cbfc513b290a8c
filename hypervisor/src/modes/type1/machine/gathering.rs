//! Where vCPUs meet to reset their machine.
//!
//! Every vCPU that runs calls [`Gathering::join`] first and [`Gathering::part`] last. When a reset
//! is asked for, each comes to [`Gathering::arrive`]; the last one of those that run is told to do
//! it and then calls [`Gathering::done`]. The others wait until the generation has changed.

use crate::sync::Mutex;
use core::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
struct State {
    running: u32,
    arrived: u32,
    /// Somebody does the reset now.
    busy: bool,
}

/// The meeting place. Under its lock only the request for the reset is withdrawn, and what a vCPU
/// was asked for before it is forgotten.
#[derive(Debug, Default)]
pub struct Gathering {
    state: Mutex<State>,
    /// Resets so far. It changes under the lock.
    generation: AtomicU64,
}

/// What a vCPU that has arrived is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Wait, and come again.
    Wait,
    /// Reset the machine: everybody is here.
    Reset,
    /// Go on: it has been reset.
    Go,
}

impl Gathering {
    /// A vCPU begins to run.
    pub fn join(&self) {
        self.state.lock().running += 1;
    }

    /// A vCPU runs no more. `arrived`: it had come for the reset after generation `seen`.
    pub fn part(&self, seen: u64, arrived: bool) {
        let mut state = self.state.lock();
        state.running = state.running.saturating_sub(1);
        if arrived && self.generation() == seen {
            state.arrived = state.arrived.saturating_sub(1);
        }
    }

    /// How often the machine has been reset.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// A vCPU has come for the reset after generation `seen`; `arrived` remembers that it has. If
    /// it is to wait, `forget` forgets what it was asked for: as the reset is still to come, all of
    /// that was asked before.
    pub fn arrive(&self, seen: u64, arrived: &mut bool, forget: impl FnOnce()) -> Turn {
        let mut state = self.state.lock();
        if self.generation() != seen {
            *arrived = false;
            return Turn::Go;
        }
        if !core::mem::replace(arrived, true) {
            state.arrived += 1;
        }
        if state.arrived < state.running || state.busy {
            forget();
            return Turn::Wait;
        }
        state.busy = true;
        Turn::Reset
    }

    /// The reset has been done; `withdraw` withdraws the request for it. Whoever sees that
    /// withdrawn sees the new generation too.
    pub fn done(&self, withdraw: impl FnOnce()) {
        let mut state = self.state.lock();
        self.generation.fetch_add(1, Ordering::SeqCst);
        withdraw();
        state.arrived = 0;
        state.busy = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_resets() {
        let gathering = Gathering::default();
        (0..3).for_each(|_| gathering.join());
        let mut arrived = [false; 3];
        assert_eq!(gathering.arrive(0, &mut arrived[0], || ()), Turn::Wait);
        assert_eq!(gathering.arrive(0, &mut arrived[1], || ()), Turn::Wait);
        assert_eq!(gathering.arrive(0, &mut arrived[0], || ()), Turn::Wait);
        // The third one ends instead.
        gathering.part(0, arrived[2]);
        assert_eq!(gathering.arrive(0, &mut arrived[0], || ()), Turn::Reset);
        assert_eq!(gathering.arrive(0, &mut arrived[1], || ()), Turn::Wait);
        gathering.done(|| ());
        assert_eq!(gathering.arrive(0, &mut arrived[1], || ()), Turn::Go);
        assert!(!arrived[1]);
        assert_eq!(gathering.generation(), 1);
    }
}
