//! A thread that serves a ring: no submission is left lying, and it ends when it is told to.

use super::*;
use crate::host::HostError;
use crate::memory::{GuestSlice, HostBlock};
use alloc::boxed::Box;
use alloc::vec::Vec;
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const BASE: Gpa = Gpa(0x1000);
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const ROUNDS: u32 = 3000;

/// A host that has nothing: the submissions here ask for nothing.
struct Nothing;

impl crate::host::Console for Nothing {
    fn write(&self, _text: GuestSlice<'_>) -> Result<(), HostError> {
        Ok(())
    }
}

impl crate::host::Clock for Nothing {
    fn wall_ns(&self) -> u64 {
        0
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }
}

impl crate::host::WaitSet for Nothing {
    fn wait(&self, _timeout_ns: u64) -> Result<u64, HostError> {
        Ok(0)
    }
}

fn nothing() -> Resources {
    Resources {
        console: Box::new(Nothing),
        clock: Box::new(Nothing),
        wait: Box::new(Nothing),
        devices: Vec::new(),
    }
}

/// As an eventfd: rings add up until somebody waits.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Doorbell for Bell {
    fn wait(&self) -> bool {
        let rung = self.rung.lock().unwrap();
        *self.changed.wait_while(rung, |rung| !*rung).unwrap() = false;
        true
    }

    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "the ring's thread sleeps on");
        thread::yield_now();
    }
}

/// Memory of a ring and nothing else, for as long as the process lives: a thread that sleeps for
/// ever must not keep its test from failing.
fn memory() -> &'static GuestMemory {
    let mut memory = GuestMemory::new();
    memory.add(HostBlock::zeroed(BASE, abi::BYTES)).unwrap();
    Box::leak(Box::new(memory))
}

/// A guest that rings only if it is asked to, at moments when the thread is about to sleep, too.
#[test]
fn a_thread_that_serves_sleeps_through_nothing() {
    let memory = memory();
    let ring: &Ring = Box::leak(Box::new(Ring::new(BASE)));
    let bell: &Bell = Box::leak(Box::default());
    let load = |offset| memory.load_u32(ring.at(offset), Ordering::SeqCst).unwrap();
    let (ended, end) = channel();
    thread::spawn(move || {
        let _ = ended.send(ring.serve(bell, memory, &nothing(), None));
    });
    for tail in 1..=ROUNDS {
        memory.store_u32(ring.at(abi::ENT_TAIL), tail, Ordering::SeqCst).unwrap();
        fence(Ordering::SeqCst);
        if load(abi::NEEDS_KICK) != 0 {
            bell.ring();
        }
        until(|| load(abi::ENT_HEAD) == tail);
        // From at once to long after the thread has gone to sleep.
        (0..tail % 64 * 256).for_each(|_| core::hint::spin_loop());
    }
    until(|| load(abi::NEEDS_KICK) != 0);
    ring.stop(bell);
    assert_eq!(end.recv_timeout(PATIENCE), Ok(Ok(())), "told to stop while it slept");
}

#[test]
fn a_ring_that_was_stopped_before_is_still_served_to_its_end() {
    let (memory, ring, bell) = (memory(), Ring::new(BASE), Bell::default());
    memory.store_u32(ring.at(abi::ENT_TAIL), abi::SIZE, Ordering::Relaxed).unwrap();
    ring.stop(&bell);
    assert_eq!(ring.serve(&bell, memory, &nothing(), None), Ok(()));
    assert_eq!(memory.load_u32(ring.at(abi::ENT_HEAD), Ordering::Relaxed), Ok(abi::SIZE));
}

/// A bell that nobody will ever ring again.
struct Dead;

impl Doorbell for Dead {
    fn wait(&self) -> bool {
        false
    }

    fn ring(&self) {}
}

/// The guest has submitted after the last look and before it could see that a ring is wanted.
#[test]
fn who_is_about_to_sleep_looks_once_more() {
    let (memory, ring) = (memory(), Ring::new(BASE));
    assert_eq!(ring.sleep(&Dead, memory), Ok(false), "nothing is there: it sleeps");
    memory.store_u32(ring.at(abi::ENT_TAIL), 1, Ordering::Relaxed).unwrap();
    assert_eq!(ring.sleep(&Dead, memory), Ok(true), "it must not sleep");
    assert_eq!(memory.load_u32(ring.at(abi::NEEDS_KICK), Ordering::Relaxed), Ok(0));
}
