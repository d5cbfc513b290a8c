//! Which thread runs where: queues and states, without a processor.
//!
//! Threads give way by themselves; what preempts a guest is its exit at a host interrupt, after
//! which its thread may give way. All threads that are ready stand in one queue, first come,
//! first served; a thread is passed over by every CPU that is not one of its own. A thread that
//! waits has a token, as with the standard library's `park`: a wake-up that comes first is not lost.
//!
//! Order of calls for one thread: [`Scheduler::spawn`]; then, by the CPU that runs it,
//! [`Scheduler::give_way`], [`Scheduler::hand_on`], [`Scheduler::park`] or [`Scheduler::exit`],
//! each followed by [`Scheduler::next`]. [`Scheduler::unpark`] may come from anywhere at any time.
//! Nothing but `spawn` allocates. A CPU that a [`Wake`] names has to be told: it counts as idle no
//! more.

use crate::cpus::CpuSet;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A thread. A name of one that has ended names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThreadId {
    index: u32,
    generation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Running,
    Waiting,
    Free,
}

struct Slot<T> {
    generation: u32,
    state: State,
    /// A wake-up that came while it did not wait.
    token: bool,
    /// Where it may run.
    on: CpuSet,
    /// Where it ran last; at first one of those.
    cpu: u32,
    data: Option<T>,
}

/// Who is to look at the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Nobody: nothing has changed.
    Nobody,
    /// This CPU.
    Cpu(u32),
}

/// The threads of all CPUs; `T` is what the machine keeps of each.
pub struct Scheduler<T> {
    slots: Vec<Slot<T>>,
    ready: VecDeque<ThreadId>,
    /// Waiting threads that have a deadline, the earliest last.
    sleepers: Vec<(u64, ThreadId)>,
    /// CPUs that have nothing to do.
    idle: CpuSet,
    live: u32,
}

impl<T> Default for Scheduler<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Scheduler<T> {
    /// No threads; no CPU is idle.
    pub const fn new() -> Self {
        Self {
            slots: Vec::new(),
            ready: VecDeque::new(),
            sleepers: Vec::new(),
            idle: CpuSet::NONE,
            live: 0,
        }
    }

    /// A new thread, ready to run, on these CPUs only. `None` where there is no memory.
    pub fn spawn(&mut self, on: CpuSet, data: T) -> Option<(ThreadId, Wake)> {
        let free = self.slots.iter().position(|slot| slot.state == State::Free);
        let index = free.unwrap_or(self.slots.len());
        let threads = self.slots.len().max(index + 1);
        self.ready.try_reserve(threads - self.ready.len()).ok()?;
        self.sleepers.try_reserve(threads - self.sleepers.len()).ok()?;
        if free.is_none() {
            self.slots.try_reserve(1).ok()?;
            let state = State::Free;
            self.slots.push(Slot { generation: 0, state, token: false, on, cpu: 0, data: None });
        }
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        (slot.token, slot.on) = (false, on);
        if !on.has(slot.cpu) {
            slot.cpu = on.first().unwrap_or(0);
        }
        slot.data = Some(data);
        let id = ThreadId { index: u32::try_from(index).ok()?, generation: slot.generation };
        self.live += 1;
        Some((id, self.make_ready(id)))
    }

    /// How many threads there are.
    pub fn live(&self) -> u32 {
        self.live
    }

    /// How many are ready and do not run.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether a ready thread could run on this CPU.
    pub fn has_work(&self, cpu: u32) -> bool {
        self.ready.iter().any(|id| self.may_run(*id, cpu))
    }

    fn may_run(&self, id: ThreadId, cpu: u32) -> bool {
        self.slot(id).is_some_and(|slot| slot.on.has(cpu))
    }

    fn slot(&self, id: ThreadId) -> Option<&Slot<T>> {
        let slot = self.slots.get(usize::try_from(id.index).ok()?)?;
        Some(slot).filter(|slot| slot.generation == id.generation && slot.state != State::Free)
    }

    fn slot_mut(&mut self, id: ThreadId) -> Option<&mut Slot<T>> {
        let slot = self.slots.get_mut(usize::try_from(id.index).ok()?)?;
        Some(slot).filter(|slot| slot.generation == id.generation && slot.state != State::Free)
    }

    /// What the machine keeps of a thread.
    pub fn data(&mut self, id: ThreadId) -> Option<&mut T> {
        self.slot_mut(id)?.data.as_mut()
    }

    fn queue(&mut self, id: ThreadId) -> Option<(CpuSet, u32)> {
        let slot = self.slot_mut_any(id)?;
        slot.state = State::Ready;
        let whereabouts = (slot.on, slot.cpu);
        // There is room: one place for each thread.
        self.ready.push_back(id);
        Some(whereabouts)
    }

    fn make_ready(&mut self, id: ThreadId) -> Wake {
        let Some((on, last)) = self.queue(id) else { return Wake::Nobody };
        let idle = if self.idle.has(last) { Some(last) } else { self.idle.and(&on).first() };
        if let Some(idle) = idle {
            // It is told once: the next thread is another's.
            self.idle.put(idle, false);
        }
        Wake::Cpu(idle.unwrap_or(last))
    }

    fn slot_mut_any(&mut self, id: ThreadId) -> Option<&mut Slot<T>> {
        self.slots.get_mut(usize::try_from(id.index).ok()?)
    }

    /// Notes whether a CPU has nothing to do.
    pub fn set_idle(&mut self, cpu: u32, idle: bool) {
        self.idle.put(cpu, idle);
    }

    /// The thread that this CPU is to run now, if there is one; it counts as running.
    pub fn next(&mut self, cpu: u32) -> Option<ThreadId> {
        let place = self.ready.iter().position(|id| self.may_run(*id, cpu))?;
        let id = self.ready.remove(place)?;
        let slot = self.slot_mut(id)?;
        slot.state = State::Running;
        slot.cpu = cpu;
        Some(id)
    }

    /// The running thread lets others run first.
    pub fn give_way(&mut self, id: ThreadId) {
        if self.running_on(id).is_some() {
            self.queue(id);
        }
    }

    /// The same for one that would rather go on: an idle CPU is to take it.
    pub fn hand_on(&mut self, id: ThreadId) -> Wake {
        match self.running_on(id) {
            Some(_) => self.make_ready(id),
            None => Wake::Nobody,
        }
    }

    /// The running thread waits, until the deadline if there is one. `false`: it does not, as a
    /// wake-up came before.
    pub fn park(&mut self, id: ThreadId, deadline: Option<u64>) -> bool {
        let Some(slot) = self.slot_mut(id) else { return false };
        if core::mem::take(&mut slot.token) {
            return false;
        }
        slot.state = State::Waiting;
        if let Some(deadline) = deadline {
            let place = self.sleepers.partition_point(|(other, _)| *other > deadline);
            // There is room: one place for each thread.
            self.sleepers.insert(place, (deadline, id));
        }
        true
    }

    /// Wakes a thread, or makes its next [`Scheduler::park`] return at once.
    pub fn unpark(&mut self, id: ThreadId) -> Wake {
        let Some(slot) = self.slot_mut(id) else { return Wake::Nobody };
        if slot.state != State::Waiting {
            slot.token = true;
            return Wake::Nobody;
        }
        self.sleepers.retain(|(_, sleeper)| *sleeper != id);
        self.make_ready(id)
    }

    /// Where a thread runs, if it does.
    pub fn running_on(&self, id: ThreadId) -> Option<u32> {
        self.slot(id).filter(|slot| slot.state == State::Running).map(|slot| slot.cpu)
    }

    /// Where a thread runs, or ran last.
    pub fn last_on(&self, id: ThreadId) -> Option<u32> {
        self.slot(id).map(|slot| slot.cpu)
    }

    /// Wakes the threads whose time has come; each CPU that is to look is handed to `wake`.
    pub fn expire(&mut self, now: u64, wake: &mut dyn FnMut(Wake)) {
        while let Some((_, id)) = self.sleepers.pop_if(|(deadline, _)| *deadline <= now) {
            wake(self.make_ready(id));
        }
    }

    /// When the first of the threads that ran last on this CPU wants to be woken.
    pub fn deadline(&self, cpu: u32) -> Option<u64> {
        let here = |id| self.slot(id).is_some_and(|slot: &Slot<T>| slot.cpu == cpu);
        self.sleepers.iter().rev().find(|(_, id)| here(*id)).map(|(deadline, _)| *deadline)
    }

    /// The running thread has ended; gives back what the machine keeps of it.
    pub fn exit(&mut self, id: ThreadId) -> Option<T> {
        let slot = self.slot_mut(id)?;
        slot.state = State::Free;
        let data = slot.data.take();
        self.live -= 1;
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spawn(s: &mut Scheduler<u32>, data: u32) -> ThreadId {
        s.spawn(CpuSet::ALL, data).unwrap().0
    }

    #[test]
    fn ready_threads_take_turns() {
        let mut s = Scheduler::new();
        let ids: [_; 3] = core::array::from_fn(|i| spawn(&mut s, u32::try_from(i).unwrap()));
        for round in 0..7 {
            let id = s.next(0).unwrap();
            assert_eq!(id, ids[round % 3]);
            assert!(s.has_work(0));
            s.give_way(id);
        }
    }

    #[test]
    fn a_pinned_thread_waits_for_its_cpu() {
        let mut s = Scheduler::new();
        let (pinned, wake) = s.spawn(CpuSet::one(2), 0).unwrap();
        assert_eq!(wake, Wake::Cpu(2));
        let free = spawn(&mut s, 1);
        assert_eq!(s.next(0), Some(free));
        assert_eq!(s.next(0), None);
        assert!(!s.has_work(1) && s.has_work(2));
        assert_eq!(s.next(2), Some(pinned));
        assert_eq!([pinned, free].map(|id| s.last_on(id)), [Some(2), Some(0)]);
    }

    #[test]
    fn a_thread_stays_on_the_cpus_that_it_may_use() {
        let mut s = Scheduler::new();
        let mut on = CpuSet::one(1);
        on.put(2, true);
        s.set_idle(0, true);
        let (id, wake) = s.spawn(on, 0).unwrap();
        assert_eq!((wake, s.next(0), s.next(3)), (Wake::Cpu(1), None, None));
        assert_eq!(s.next(2), Some(id));
        s.park(id, None);
        // Neither the idle one that is not its own, nor the first of its own.
        assert_eq!((s.unpark(id), s.next(0)), (Wake::Cpu(2), None));
        assert_eq!(s.next(2), Some(id));
        s.park(id, None);
        s.set_idle(1, true);
        assert_eq!((s.unpark(id), s.next(1)), (Wake::Cpu(1), Some(id)));
    }

    #[test]
    fn a_wake_up_is_never_lost() {
        let mut s = Scheduler::new();
        let id = spawn(&mut s, 0);
        assert_eq!(s.next(0), Some(id));
        assert_eq!(s.unpark(id), Wake::Nobody);
        assert!(!s.park(id, Some(5)));
        assert_eq!(s.deadline(0), None);
        assert!(s.park(id, None));
        assert_eq!(s.next(0), None);
        assert_eq!(s.unpark(id), Wake::Cpu(0));
        assert_eq!((s.next(1), s.running_on(id)), (Some(id), Some(1)));
        // While ready, too.
        s.give_way(id);
        assert_eq!(s.unpark(id), Wake::Nobody);
        assert_eq!(s.next(1), Some(id));
        assert!(!s.park(id, None));
    }

    #[test]
    fn sleepers_wake_in_the_order_of_their_deadlines() {
        let mut s = Scheduler::new();
        let ids: [_; 4] = core::array::from_fn(|i| spawn(&mut s, u32::try_from(i).unwrap()));
        for (cpu, deadline) in [(0, 30), (1, 10), (0, 20), (1, 10)] {
            let id = s.next(cpu).unwrap();
            assert!(s.park(id, Some(deadline)));
        }
        assert_eq!((s.deadline(0), s.deadline(1)), (Some(20), Some(10)));
        // One that is woken early sleeps no more.
        s.unpark(ids[2]);
        assert_eq!(s.deadline(0), Some(30));
        assert_eq!(s.next(0), Some(ids[2]));
        let mut woken = 0;
        s.expire(9, &mut |_| woken += 1);
        assert_eq!(woken, 0);
        s.expire(10, &mut |wake| woken += u32::from(wake == Wake::Cpu(1)));
        assert_eq!((woken, s.ready()), (2, 2));
        s.expire(u64::MAX, &mut |_| ());
        let order = [s.next(0), s.next(0), s.next(0), s.next(0)];
        assert_eq!(order, [Some(ids[1]), Some(ids[3]), Some(ids[0]), None]);
    }

    #[test]
    fn an_idle_cpu_is_told_first() {
        let mut s = Scheduler::new();
        s.set_idle(70, true);
        let (id, wake) = s.spawn(CpuSet::ALL, 0).unwrap();
        assert_eq!(wake, Wake::Cpu(70));
        assert_eq!(s.next(3), Some(id));
        s.park(id, None);
        s.set_idle(3, true);
        assert_eq!(s.unpark(id), Wake::Cpu(3));
        s.set_idle(3, false);
        s.set_idle(70, false);
        assert_eq!(s.next(3), Some(id));
        s.park(id, None);
        assert_eq!(s.unpark(id), Wake::Cpu(3));
        s.set_idle(100_000, true);
    }

    #[test]
    fn each_idle_cpu_is_told_of_another_thread() {
        let mut s = Scheduler::new();
        [1, 2].into_iter().for_each(|cpu| s.set_idle(cpu, true));
        let told: [_; 3] = core::array::from_fn(|_| s.spawn(CpuSet::ALL, 0).unwrap().1);
        assert_eq!(told, [1, 2, 0].map(Wake::Cpu));
        // The one that gives way to a pinned one goes on elsewhere.
        let first = s.next(1).unwrap();
        s.set_idle(2, true);
        assert_eq!(s.hand_on(first), Wake::Cpu(2));
    }

    #[test]
    fn the_name_of_an_ended_thread_names_nothing() {
        let mut s = Scheduler::new();
        let old = spawn(&mut s, 7);
        assert_eq!(s.next(0), Some(old));
        assert_eq!((s.exit(old), s.live()), (Some(7), 0));
        let new = spawn(&mut s, 8);
        assert_ne!(old, new);
        assert_eq!(s.unpark(old), Wake::Nobody);
        assert!(s.data(old).is_none() && !s.park(old, None));
        assert_eq!(s.next(0), Some(new));
        assert!(s.park(new, None));
        assert_eq!(s.exit(old), None);
    }
}
