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
///
/// Runs are numbered, from 1 on: a stop ends the run that it was meant for, whether it comes before
/// or after that run's [`Power::start`].
#[derive(Default)]
pub struct Power {
    asked: AtomicBool,
    /// A leaf lock.
    wishes: Mutex<Wishes>,
    waker: RwLock<Option<Box<dyn Fn() + Send + Sync>>>,
}

#[derive(Default)]
struct Wishes {
    verdict: Option<Verdict>,
    /// The run that was started last.
    run: u64,
    /// The latest run that was stopped.
    stopped: u64,
    /// The machine has to be reset before its guest goes on.
    reset_due: bool,
}

impl Wishes {
    /// The first wish counts, except that an end overrides a reset.
    fn add(&mut self, wish: Verdict) {
        self.reset_due |= wish == Verdict::Reset;
        if matches!(self.verdict, None | Some(Verdict::Reset)) {
            self.verdict = Some(wish);
        }
    }
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
        let mut wishes = self.wishes.lock();
        wishes.add(wish);
        self.look(&wishes);
        drop(wishes);
        self.wake();
    }

    /// Stops the machine in this run; nothing if a later one has begun.
    pub fn stop(&self, run: u64) {
        let mut wishes = self.wishes.lock();
        if run < wishes.run {
            return;
        }
        wishes.stopped = run;
        wishes.add(Verdict::Stop);
        self.look(&wishes);
        drop(wishes);
        self.wake();
    }

    /// Begins a run, unless it has begun. What ended the one before is forgotten; a guest that had
    /// ended by itself, or had asked for a reset that was not done, starts anew. Whoever starts the
    /// machine calls this, and so does each vCPU, which may be first.
    pub fn start(&self, run: u64) {
        let mut wishes = self.wishes.lock();
        if run <= wishes.run {
            return;
        }
        wishes.reset_due |= !matches!(wishes.verdict, None | Some(Verdict::Stop));
        wishes.run = run;
        wishes.verdict = wishes.reset_due.then_some(Verdict::Reset);
        if wishes.stopped >= run {
            wishes.verdict = Some(Verdict::Stop);
        }
        self.look(&wishes);
    }

    fn look(&self, wishes: &Wishes) {
        self.asked.store(wishes.verdict.is_some(), Ordering::SeqCst);
    }

    fn wake(&self) {
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
        if self.asked() { self.wishes.lock().verdict.clone() } else { None }
    }

    /// Forgets a reset that has been done. An end stays.
    pub fn reset_done(&self) {
        let mut wishes = self.wishes.lock();
        wishes.reset_due = false;
        if wishes.verdict == Some(Verdict::Reset) {
            wishes.verdict = None;
        }
        self.look(&wishes);
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
        power.start(2);
        assert_eq!(power.verdict(), Some(Verdict::Reset), "it starts anew");
        power.reset_done();
        assert!(!power.asked());
    }

    #[test]
    fn a_stop_ends_its_own_run_whenever_it_comes() {
        let power = Power::new();
        // Before the start that it overtook.
        power.stop(1);
        power.start(1);
        assert_eq!(power.verdict(), Some(Verdict::Stop));
        power.start(2);
        assert_eq!(power.verdict(), None);
        // After the start of the next run.
        power.stop(1);
        assert_eq!(power.verdict(), None);
        power.stop(2);
        assert_eq!(power.verdict(), Some(Verdict::Stop));
    }

    /// A vCPU may enter its machine before whoever has started it comes here.
    #[test]
    fn a_run_begins_once() {
        let power = Power::new();
        power.stop(1);
        power.start(1);
        power.start(2);
        assert_eq!(power.verdict(), None, "the last run's stop is over");
        power.ask(Verdict::Off);
        power.start(2);
        assert_eq!(power.verdict(), Some(Verdict::Off));
    }

    #[test]
    fn a_reset_that_a_stop_overtook_is_done_in_the_next_run() {
        let power = Power::new();
        power.start(1);
        power.ask(Verdict::Reset);
        power.stop(1);
        power.start(2);
        assert_eq!(power.verdict(), Some(Verdict::Reset));
        // A machine that is off and was stopped before it ran again.
        power.ask(Verdict::Off);
        power.stop(3);
        power.start(3);
        assert_eq!(power.verdict(), Some(Verdict::Stop));
        power.start(4);
        assert_eq!(power.verdict(), Some(Verdict::Reset));
    }
}
