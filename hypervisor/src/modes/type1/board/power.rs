//! The machine as a whole: on, to be reset, off.

use crate::sync::{Mutex, RwLock};
use crate::vcpu::{Ending, Line};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

/// What is to become of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is reset and goes on.
    Reset,
    /// Its guest turned it off.
    Off,
    /// Its guest ended it with this status (a debug-exit device).
    Exit(i32),
    /// It is ended for something that cannot be answered.
    Fault(Line),
    /// It is stopped from outside.
    Stop,
}

impl Verdict {
    /// How the run of every vCPU ends; `None` if the machine goes on after it.
    pub fn ending(&self) -> Option<Ending> {
        match self {
            Self::Reset => None,
            Self::Off => Some(Ending::Exit { status: 0, cookie: None }),
            Self::Exit(status) => Some(Ending::Exit { status: *status, cookie: None }),
            Self::Fault(line) => Some(Ending::Fault(*line)),
            Self::Stop => Some(Ending::Interrupted),
        }
    }
}

/// Where anybody asks for an end or a reset. The vCPUs' loops look at [`Power::asked`] before
/// every entry; the waker makes them look.
#[derive(Default)]
pub struct Power {
    asked: AtomicBool,
    /// A leaf lock.
    verdict: Mutex<Option<Verdict>>,
    waker: RwLock<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl Power {
    /// Nothing asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is called to make all vCPUs look. It must not block.
    pub fn on_ask(&self, wake: impl Fn() + Send + Sync + 'static) {
        *self.waker.write() = Some(Box::new(wake));
    }

    /// Asks. The first wish counts, except that an end overrides a reset.
    pub fn ask(&self, wish: Verdict) {
        {
            let mut verdict = self.verdict.lock();
            if matches!(*verdict, None | Some(Verdict::Reset)) {
                *verdict = Some(wish);
            }
            self.asked.store(true, Ordering::SeqCst);
        }
        if let Some(wake) = &*self.waker.read() {
            wake();
        }
    }

    /// Whether anything is asked for.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// What is asked for.
    pub fn verdict(&self) -> Option<Verdict> {
        if self.asked() { self.verdict.lock().clone() } else { None }
    }

    /// Forgets a reset that has been done. An end stays.
    pub fn reset_done(&self) {
        let mut verdict = self.verdict.lock();
        if *verdict == Some(Verdict::Reset) {
            *verdict = None;
            self.asked.store(false, Ordering::SeqCst);
        }
    }

    /// Forgets everything: the machine is started again.
    pub fn clear(&self) {
        let mut verdict = self.verdict.lock();
        *verdict = None;
        self.asked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_end_counts() {
        let power = Power::new();
        assert_eq!(power.verdict(), None);
        power.ask(Verdict::Reset);
        power.ask(Verdict::Off);
        power.ask(Verdict::Stop);
        power.reset_done();
        assert_eq!(power.verdict(), Some(Verdict::Off));
        power.clear();
        power.ask(Verdict::Reset);
        power.reset_done();
        assert!(!power.asked());
    }
}
