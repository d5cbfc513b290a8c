//! The devices' timers: one queue for the whole board, served by one vCPU's loop.
//!
//! A device with a timer implements [`Timed`], is registered once with [`Timers::add`], and then
//! keeps its next deadline in its [`TimerSlot`]. Deadlines are computed from deadlines, not from
//! the moment at which they were served, so a late service does not make a clock drift.
//!
//! A slot is set under its device's lock and takes no lock itself. If the new deadline is the
//! earliest, the waker is called: it makes the serving vCPU look again.

use crate::device::Effects;
use crate::sync::{Mutex, RwLock};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// No deadline.
const NEVER: u64 = u64::MAX;

/// A device with a timer.
pub trait Timed: Send {
    /// Its deadline has come, or passed: it does everything that is due by `now` (monotonic
    /// nanoseconds), in bounded work however late it is, and sets its slot again.
    fn expire(&mut self, now: u64, effects: &mut Effects);
}

/// Where one device keeps its next deadline.
#[derive(Clone)]
pub struct TimerSlot(Arc<Slot>);

struct Slot {
    at: AtomicU64,
    shared: Arc<Shared>,
}

struct Shared {
    /// At most the earliest deadline of all slots.
    earliest: AtomicU64,
    waker: RwLock<Option<Box<dyn Fn() + Send + Sync>>>,
}

impl Shared {
    fn wake(&self) {
        if let Some(wake) = &*self.waker.read() {
            wake();
        }
    }
}

impl TimerSlot {
    /// Sets the next deadline, in monotonic nanoseconds, in place of the one before.
    pub fn set(&self, at: Option<u64>) {
        let at = at.unwrap_or(NEVER);
        self.0.at.store(at, Ordering::Release);
        let before = self.0.shared.earliest.fetch_min(at, Ordering::AcqRel);
        if at < before {
            self.0.shared.wake();
        }
    }

    /// The next deadline.
    pub fn get(&self) -> Option<u64> {
        Some(self.0.at.load(Ordering::Acquire)).filter(|at| *at != NEVER)
    }
}

struct Entry {
    slot: TimerSlot,
    device: Arc<Mutex<dyn Timed>>,
}

/// The queue.
pub struct Timers {
    shared: Arc<Shared>,
    entries: RwLock<Vec<Entry>>,
}

impl Default for Timers {
    fn default() -> Self {
        Self::new()
    }
}

impl Timers {
    /// An empty queue.
    pub fn new() -> Self {
        let shared = Shared { earliest: AtomicU64::new(NEVER), waker: RwLock::new(None) };
        Self { shared: Arc::new(shared), entries: RwLock::new(Vec::new()) }
    }

    /// A slot, to be given to the device that is then registered with it by [`Timers::add`].
    pub fn slot(&self) -> TimerSlot {
        let slot = Slot { at: AtomicU64::new(NEVER), shared: self.shared.clone() };
        TimerSlot(Arc::new(slot))
    }

    /// Registers a device.
    pub fn add(&self, slot: TimerSlot, device: Arc<Mutex<dyn Timed>>) {
        self.entries.write().push(Entry { slot, device });
    }

    /// What is called when a deadline is set that is earlier than all others. It must not block.
    pub fn on_earlier(&self, wake: impl Fn() + Send + Sync + 'static) {
        *self.shared.waker.write() = Some(Box::new(wake));
    }

    /// Makes the vCPU that serves the timers look.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// The earliest deadline, or a moment before it.
    pub fn next(&self) -> Option<u64> {
        Some(self.shared.earliest.load(Ordering::Acquire)).filter(|at| *at != NEVER)
    }

    /// Serves what is due, and hands the effects of each device to `apply` with no lock held.
    pub fn serve(&self, now: u64, mut apply: impl FnMut(Effects)) {
        if self.shared.earliest.load(Ordering::Acquire) > now {
            return;
        }
        // From here on every deadline that is set shows in `earliest` again.
        self.shared.earliest.store(NEVER, Ordering::Release);
        let mut index = 0;
        while let Some((slot, device)) = self.entry(index) {
            if slot.get().is_some_and(|at| at <= now) {
                let mut effects = Effects::new();
                device.lock().expire(now, &mut effects);
                apply(effects);
            }
            let at = slot.0.at.load(Ordering::Acquire);
            self.shared.earliest.fetch_min(at, Ordering::AcqRel);
            index += 1;
        }
    }

    fn entry(&self, index: usize) -> Option<(TimerSlot, Arc<Mutex<dyn Timed>>)> {
        let entries = self.entries.read();
        entries.get(index).map(|entry| (entry.slot.clone(), entry.device.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU32;

    struct Ticker {
        slot: TimerSlot,
        period: u64,
        ticks: u64,
    }

    impl Timed for Ticker {
        fn expire(&mut self, now: u64, _: &mut Effects) {
            let Some(at) = self.slot.get() else { return };
            let due = (now - at) / self.period + 1;
            self.ticks += due;
            self.slot.set(Some(at + due * self.period));
        }
    }

    fn ticker(timers: &Timers, first: u64, period: u64) -> Arc<Mutex<Ticker>> {
        let slot = timers.slot();
        let ticker = Arc::new(Mutex::new(Ticker { slot: slot.clone(), period, ticks: 0 }));
        timers.add(slot.clone(), ticker.clone());
        slot.set(Some(first));
        ticker
    }

    #[test]
    fn deadlines_come_from_deadlines() {
        let timers = Timers::new();
        let (fast, slow) = (ticker(&timers, 10, 10), ticker(&timers, 35, 35));
        let mut now = 0;
        while now < 700 {
            now += 13;
            timers.serve(now, |_| ());
            let next = timers.next().unwrap();
            assert!(next > now && next <= now + 10, "{now} {next}");
        }
        assert_eq!((fast.lock().ticks, slow.lock().ticks), (now / 10, now / 35));
    }

    #[test]
    fn only_an_earlier_deadline_wakes() {
        let timers = Timers::new();
        let wakes = Arc::new(AtomicU32::new(0));
        let count = wakes.clone();
        timers.on_earlier(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let (a, b) = (timers.slot(), timers.slot());
        a.set(Some(100));
        b.set(Some(200));
        b.set(None);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        b.set(Some(50));
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
        assert_eq!(timers.next(), Some(50));
    }
}
