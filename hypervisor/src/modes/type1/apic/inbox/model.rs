//! A model checker for [`super::Inbox`]: the real code, run by real threads of which only one may
//! go at a time, in every order of its atomic operations.
//!
//! [`AtomicU32`] and [`AtomicU64`] stand in for the real ones and ask the scheduler before each
//! operation; outside of a model they are the real ones. The orders are those of one sequence of
//! all operations, which is what the code asks for (`SeqCst`).

use super::*;
use crate::modes::type1::host::VcpuThread;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use std::sync::{Condvar, Mutex};
use std::thread;

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        #[derive(Debug, Default)]
        pub struct $name(core::sync::atomic::$name);

        impl $name {
            #[allow(dead_code)]
            pub fn new(value: $value) -> Self {
                Self(core::sync::atomic::$name::new(value))
            }
            pub fn load(&self, order: core::sync::atomic::Ordering) -> $value {
                point();
                self.0.load(order)
            }
            pub fn store(&self, value: $value, order: core::sync::atomic::Ordering) {
                point();
                self.0.store(value, order);
            }
            pub fn swap(&self, value: $value, order: core::sync::atomic::Ordering) -> $value {
                point();
                self.0.swap(value, order)
            }
            pub fn fetch_or(&self, bits: $value, order: core::sync::atomic::Ordering) -> $value {
                point();
                self.0.fetch_or(bits, order)
            }
            pub fn fetch_and(&self, bits: $value, order: core::sync::atomic::Ordering) -> $value {
                point();
                self.0.fetch_and(bits, order)
            }
            #[allow(dead_code)]
            pub fn compare_exchange(
                &self,
                before: $value,
                after: $value,
                success: core::sync::atomic::Ordering,
                failure: core::sync::atomic::Ordering,
            ) -> Result<$value, $value> {
                point();
                self.0.compare_exchange(before, after, success, failure)
            }
        }
    };
}
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

std::thread_local! {
    static ME: RefCell<Option<(Arc<Scheduler>, usize)>> = const { RefCell::new(None) };
}

/// Before an atomic operation: another thread may go first.
fn point() {
    let me = ME.with(|me| me.borrow().clone());
    if let Some((scheduler, index)) = me {
        scheduler.pass(index, Status::Ready);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Status {
    Ready,
    /// Parked and not kicked.
    Parked,
    Done,
}

struct State {
    status: Vec<Status>,
    turn: usize,
    kicked: bool,
    /// What to choose at each step; then always the first.
    prefix: Vec<usize>,
    /// What was chosen, of how many.
    trace: Vec<(usize, usize)>,
    lost: bool,
}

struct Scheduler {
    state: Mutex<State>,
    turns: Condvar,
}

impl Scheduler {
    /// Thread `me` lets go with this status and comes back when it is its turn.
    fn pass(&self, me: usize, status: Status) {
        let mut state = self.state.lock().unwrap();
        state.status[me] = status;
        state.choose();
        self.turns.notify_all();
        if status != Status::Done {
            drop(self.turns.wait_while(state, |state| state.turn != me && !state.lost).unwrap());
        }
    }

    fn wait(&self, me: usize) {
        let state = self.state.lock().unwrap();
        drop(self.turns.wait_while(state, |state| state.turn != me).unwrap());
    }
}

impl State {
    fn choose(&mut self) {
        let ready: Vec<_> =
            (0..self.status.len()).filter(|i| self.status[*i] == Status::Ready).collect();
        if ready.is_empty() {
            self.lost |= self.status.contains(&Status::Parked);
            return;
        }
        let choice = self.prefix.get(self.trace.len()).copied().unwrap_or(0);
        self.trace.push((choice, ready.len()));
        self.turn = ready[choice];
    }
}

impl VcpuThread for Scheduler {
    fn enter(&self) {}
    fn leave(&self) {}

    fn park(&self, _: Option<u64>) {
        let mut state = self.state.lock().unwrap();
        if !core::mem::take(&mut state.kicked) {
            drop(state);
            self.pass(0, Status::Parked);
            state = self.state.lock().unwrap();
            state.kicked = false;
        }
    }

    fn kick(&self) {
        let mut state = self.state.lock().unwrap();
        state.kicked = true;
        if state.status[0] == Status::Parked {
            state.status[0] = Status::Ready;
        }
    }
}

type Sender = fn(&Inbox);
type Wanted = fn(&Seen) -> bool;
type Owner = fn(&Inbox, &Scheduler, Wanted);

/// Runs the owner and the senders in one order; gives the trace.
fn run(
    owner: Owner,
    senders: &[Sender],
    wanted: Wanted,
    prefix: Vec<usize>,
) -> Vec<(usize, usize)> {
    let count = senders.len() + 1;
    let state = State {
        status: vec![Status::Ready; count],
        turn: 0,
        kicked: false,
        prefix,
        trace: Vec::new(),
        lost: false,
    };
    let scheduler = Arc::new(Scheduler { state: Mutex::new(state), turns: Condvar::new() });
    let inbox = Arc::new(Inbox::new(scheduler.clone()));
    thread::scope(|scope| {
        for (index, sender) in (1..).zip(senders) {
            let (scheduler, inbox) = (scheduler.clone(), inbox.clone());
            scope.spawn(move || {
                scheduler.wait(index);
                ME.set(Some((scheduler.clone(), index)));
                sender(&inbox);
                scheduler.pass(index, Status::Done);
            });
        }
        ME.set(Some((scheduler.clone(), 0)));
        owner(&inbox, &scheduler, wanted);
        ME.set(None);
        scheduler.pass(0, Status::Done);
    });
    let state = scheduler.state.lock().unwrap();
    assert!(!state.lost, "lost: {:?}", state.trace);
    state.trace.clone()
}

/// What the owner has seen.
#[derive(Default)]
struct Seen {
    requests: u32,
    startup: u8,
    nmis: u32,
    posted: Vectors,
}

/// The loop of a processor that has nothing to do but what it is asked for.
fn owner(inbox: &Inbox, scheduler: &Scheduler, wanted: Wanted) {
    let mut seen = Seen::default();
    loop {
        let (requests, startup) = inbox.take();
        seen.requests |= requests.bits();
        seen.nmis += Inbox::nmis(requests);
        if requests.contains(Requests::STARTUP) {
            seen.startup = startup;
        }
        if requests.contains(Requests::VECTORS) {
            let (posted, _) = inbox.take_vectors();
            (0..4).for_each(|word| seen.posted.0[word] |= posted.0[word]);
        }
        if wanted(&seen) || scheduler.state.lock().unwrap().lost {
            return;
        }
        if inbox.enter() {
            inbox.thread().park(None);
            inbox.leave();
        }
    }
}

/// Every order; gives how many there were.
fn explore(owner: Owner, senders: &[Sender], wanted: Wanted) -> u32 {
    let mut prefix = Vec::new();
    let mut orders = 0;
    loop {
        let mut trace = run(owner, senders, wanted, prefix);
        orders += 1;
        while trace.last().is_some_and(|(choice, of)| choice + 1 == *of) {
            trace.pop();
        }
        let Some(last) = trace.pop() else { return orders };
        prefix = trace.iter().map(|(choice, _)| *choice).chain([last.0 + 1]).collect();
    }
}

#[test]
fn no_order_loses_a_request() {
    let nmi: Sender = |inbox| inbox.ask(Requests::NMI);
    let orders = explore(owner, &[nmi], |seen| seen.requests & Requests::NMI.bits() != 0);
    assert!(orders > 10, "{orders}");
}

#[test]
fn no_order_loses_one_of_two_requests() {
    let nmi: Sender = |inbox| inbox.ask(Requests::NMI);
    let look: Sender = |inbox| inbox.ask(Requests::LOOK);
    let orders = explore(owner, &[nmi, look], |seen| {
        let both = (Requests::NMI | Requests::LOOK).bits();
        seen.requests & both == both
    });
    assert!(orders > 100, "{orders}");
}

#[test]
fn no_order_loses_one_of_two_nmis() {
    let nmi: Sender = |inbox| inbox.ask(Requests::NMI);
    let orders = explore(owner, &[nmi, nmi], |seen| {
        assert!(seen.nmis <= 2);
        seen.nmis == 2
    });
    assert!(orders > 100, "{orders}");
}

#[test]
fn no_order_loses_a_vector() {
    let post: Sender = |inbox| inbox.post(0x31, false);
    let orders = explore(owner, &[post], |seen| seen.posted.has(0x31));
    assert!(orders > 10, "{orders}");
}

#[test]
fn a_start_up_comes_with_its_vector() {
    let start: Sender = |inbox| {
        inbox.ask(Requests::INIT);
        inbox.start_up(0x9a);
    };
    let orders = explore(owner, &[start], |seen| {
        assert!(seen.startup == 0 || seen.startup == 0x9a);
        seen.startup == 0x9a && seen.requests & Requests::INIT.bits() != 0
    });
    assert!(orders > 10, "{orders}");
}

/// The checker finds what it is there for: a loop that parks whatever `enter` says loses one.
#[test]
#[should_panic(expected = "lost")]
fn a_loop_without_the_second_look_is_found_out() {
    let nmi: Sender = |inbox| inbox.ask(Requests::NMI);
    explore(careless, &[nmi], |seen| seen.requests != 0);
}

fn careless(inbox: &Inbox, scheduler: &Scheduler, _: fn(&Seen) -> bool) {
    while inbox.take().0.is_empty() && !scheduler.state.lock().unwrap().lost {
        let _ = inbox.enter();
        inbox.thread().park(None);
        inbox.leave();
    }
}
