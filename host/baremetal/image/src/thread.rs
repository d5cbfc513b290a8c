//! Threads of the image: one for each vCPU and for each service. They give way by themselves;
//! interrupts come only where a thread lets them in or its CPU is idle.
//!
//! The scheduler's lock is held across a switch: who goes on releases it ([`after_switch`]).

use crate::cpu::local::{self, Local};
use crate::cpu::{apic, interrupt};
use crate::memory::space;
use crate::memory::stack::{Promised, Stack};
use crate::platform::Machine;
use crate::time;
use alloc::boxed::Box;
use core::arch::naked_asm;
use core::sync::atomic::{AtomicBool, Ordering};
use host_baremetal::cpus::CpuSet;
use host_baremetal::sched::{Scheduler, ThreadId, Wake};
use hypervisor::sync::Mutex;

/// How long a thread runs while others are ready, in nanoseconds.
const SLICE: u64 = 5_000_000;
/// Stacks are frames of this order: 32 KiB.
const STACK_ORDER: u8 = 3;

static THREADS: Mutex<Scheduler<Box<Context>>> = Mutex::new(Scheduler::new());

/// What is kept of a thread that does not run.
pub struct Context {
    sp: usize,
    /// Held until the thread has ended and another stack is in use.
    _stack: Stack,
    start: Option<Box<dyn FnOnce() + Send>>,
    /// It is to leave its guest, or not to enter it.
    attention: AtomicBool,
}

// SAFETY: the stack pointer leads to the thread's own stack.
unsafe impl Send for Context {}

/// Stacks for so many threads at once.
pub fn promise(count: u32) -> Option<Promised> {
    Promised::new(STACK_ORDER, count)
}

/// Begins a thread on these CPUs, of which at least one runs. `None` where there is no memory.
pub fn spawn(on: CpuSet, start: impl FnOnce() + Send + 'static) -> Option<ThreadId> {
    spawn_with(Stack::new(STACK_ORDER)?, on, start)
}

/// The same, on a stack that was promised ([`promise`]).
pub fn spawn_with(
    stack: Stack,
    on: CpuSet,
    start: impl FnOnce() + Send + 'static,
) -> Option<ThreadId> {
    // What `switch` pops: six registers, and where it returns to.
    let top: *mut usize = core::ptr::with_exposed_provenance_mut(stack.top());
    // SAFETY: the new stack is mapped and nobody's yet. At the first instruction of a function
    // the stack pointer is 8 below a multiple of 16; a frame pointer of 0 ends a trace.
    let sp = unsafe {
        let sp = top.sub(8);
        sp.write_bytes(0, 8);
        sp.add(6).write(begin as *const () as usize);
        sp.addr()
    };
    let context = Box::new(Context {
        sp,
        _stack: stack,
        start: Some(Box::new(start)),
        attention: AtomicBool::new(false),
    });
    let mut threads = THREADS.lock();
    let (id, wake) = threads.spawn(on, context)?;
    told(&threads, wake);
    Some(id)
}

/// The thread that runs here; `None` in a CPU's idle loop.
pub fn current() -> Option<ThreadId> {
    local::this().current.get()
}

/// The CPU that a thread runs on, or ran on last; `None` if it has ended.
pub fn last_on(id: ThreadId) -> Option<u32> {
    THREADS.lock().last_on(id)
}

/// How many threads there are.
pub fn live() -> u32 {
    THREADS.lock().live()
}

/// Waits to be woken, until a time of [`time::now`] if there is one. It may return early.
pub fn park(deadline: Option<u64>) {
    let Some(id) = current() else {
        interrupt::window();
        return;
    };
    let mut threads = THREADS.lock();
    if threads.park(id, deadline) {
        core::mem::forget(threads);
        switch_away();
    }
}

/// Wakes a thread, or keeps it from waiting the next time.
pub fn unpark(id: ThreadId) {
    let mut threads = THREADS.lock();
    let wake = threads.unpark(id);
    told(&threads, wake);
}

/// The running thread's word for it; none in a CPU's idle loop.
#[inline]
fn attention() -> Option<&'static AtomicBool> {
    // SAFETY: null, or the running thread's own, which lives as long as it runs; references are
    // used at once.
    unsafe { local::this().attention.get().as_ref() }
}

/// Whether this thread is to leave its guest, or not to enter it.
pub fn has_attention() -> bool {
    attention().is_some_and(|attention| attention.load(Ordering::Acquire))
}

/// The same; from then on it may enter again.
#[inline]
pub fn take_attention() -> bool {
    let Some(attention) = attention() else { return false };
    let has = attention.load(Ordering::Acquire);
    if has {
        attention.store(false, Ordering::Relaxed);
    }
    has
}

/// Wakes a thread, and makes it leave its guest or not enter it, once.
pub fn interrupt(id: ThreadId) {
    let mut threads = THREADS.lock();
    if let Some(context) = threads.data(id) {
        context.attention.store(true, Ordering::Release);
    }
    let wake = threads.unpark(id);
    told(&threads, wake);
    if let Some(cpu) = threads.running_on(id) {
        kick(cpu);
    }
}

/// Lets other threads run first.
#[allow(dead_code)]
pub fn give_way() {
    let Some(id) = current() else { return };
    let mut threads = THREADS.lock();
    threads.give_way(id);
    core::mem::forget(threads);
    switch_away();
}

/// Lets interrupts in, and other threads if this one's time is over. To be called where no lock
/// is held, at every exit of a guest for an interrupt.
pub fn take_interrupts() {
    interrupt::window();
    let local = local::this();
    let now = time::now();
    let mut threads = THREADS.lock();
    expire(&mut threads, now);
    let over = now >= local.slice_end.get() && threads.has_work(local.number);
    if let Some(id) = local.current.get().filter(|_| over) {
        let wake = threads.hand_on(id);
        told(&threads, wake);
        core::mem::forget(threads);
        switch_away();
    } else {
        set_timer(local, &threads);
    }
}

/// Asks for an interrupt on this CPU at a time, for the backend.
pub fn set_wish(at: Option<u64>) {
    let local = local::this();
    local.wish.set(at.unwrap_or(u64::MAX));
    let earlier = local.wish.get() < local.timer.get();
    if earlier {
        local.timer.set(local.wish.get());
        time::set_timer(local.wish.get());
    }
}

/// Runs threads on this CPU for ever.
pub fn idle() -> ! {
    let local = local::this();
    loop {
        let mut threads = THREADS.lock();
        expire(&mut threads, time::now());
        if threads.has_work(local.number) {
            core::mem::forget(threads);
            switch_away();
        } else {
            threads.set_idle(local.number, true);
            local.wish.set(u64::MAX);
            set_timer(local, &threads);
            drop(threads);
            interrupt::wait();
            THREADS.lock().set_idle(local.number, false);
        }
    }
}

fn expire(threads: &mut Scheduler<Box<Context>>, now: u64) {
    let this = local::this().number;
    threads.expire(now, &mut |wake| {
        if let Wake::Cpu(cpu) = wake
            && cpu != this
        {
            kick(cpu);
        }
    });
}

/// Makes a CPU look at the queue soon.
pub fn kick(cpu: u32) {
    if let Some(local) = local::of(cpu) {
        let id = local.apic.load(core::sync::atomic::Ordering::Relaxed);
        apic::send(id, apic::vector::KICK);
    }
}

/// Tells the CPU that is to look.
fn told(threads: &Scheduler<Box<Context>>, wake: Wake) {
    let local = local::this();
    match wake {
        Wake::Cpu(cpu) if cpu != local.number => kick(cpu),
        Wake::Cpu(_) => set_timer(local, threads),
        Wake::Nobody => {}
    }
}

/// Sets this CPU's timer to what comes first.
fn set_timer(local: &Local, threads: &Scheduler<Box<Context>>) {
    let sleeper = threads.deadline(local.number).unwrap_or(u64::MAX);
    let busy = local.current.get().is_some() && threads.has_work(local.number);
    let slice = if busy { local.slice_end.get() } else { u64::MAX };
    let first = sleeper.min(slice).min(local.wish.get());
    if local.timer.replace(first) != first {
        time::set_timer(first);
    }
}

/// Runs the next thread, or the idle loop. The lock is held, and the guard forgotten.
fn switch_away() {
    let local = local::this();
    let idle = local.idle.get();
    // SAFETY: the lock is held by this CPU; the guard was forgotten, so this is the only way in.
    let threads = unsafe { &mut *THREADS.as_mut_ptr() };
    let before = local.current.get();
    let next = threads.next(local.number);
    local.current.set(next);
    local.slice_end.set(time::now().saturating_add(SLICE));
    let mut place = |id: Option<ThreadId>| match id.and_then(|id| threads.data(id)) {
        Some(context) => &raw mut context.sp,
        None => idle,
    };
    let to = place(next);
    // A thread that has ended is in `ended`, where its stack pointer is written for nothing.
    let from = match before {
        Some(_) if has_ended(local) => ended_sp(local),
        before => place(before),
    };
    if from != to {
        // A guest's registers stay in the processor as long as its thread does.
        backend_native::release(&Machine);
        // SAFETY: `to` is where a thread, or the idle loop, was switched away from, or a new
        // thread's beginning; `from` is where this one is found again.
        unsafe { switch(from, *to) };
    }
    after_switch();
}

fn has_ended(local: &Local) -> bool {
    let ended = local.ended.take();
    let has = ended.is_some();
    local.ended.set(ended);
    has
}

fn ended_sp(local: &Local) -> *mut usize {
    let mut ended = local.ended.take();
    // The box's contents stay where they are when the box moves back.
    let sp = ended.as_mut().map_or(local.idle.get(), |context| &raw mut context.sp);
    local.ended.set(ended);
    sp
}

/// The first steps of whoever goes on, maybe on another CPU than before.
fn after_switch() {
    let local = local::this();
    let ended = local.ended.take();
    local.wish.set(u64::MAX);
    space::flush(local);
    // SAFETY: the lock is held, and this is its only user.
    let threads = unsafe { &mut *THREADS.as_mut_ptr() };
    let context = local.current.get().and_then(|id| threads.data(id));
    local.attention.set(context.map_or(core::ptr::null(), |context| &raw const context.attention));
    set_timer(local, threads);
    // SAFETY: locked by whoever switched, whose guard was forgotten.
    unsafe { THREADS.force_unlock() };
    drop(ended);
}

/// A thread's first function.
extern "C" fn begin() -> ! {
    after_switch();
    let start = current().and_then(|id| THREADS.lock().data(id)?.start.take());
    if let Some(start) = start {
        start();
    }
    let local = local::this();
    let mut threads = THREADS.lock();
    if let Some(id) = local.current.get() {
        local.ended.set(threads.exit(id));
    }
    core::mem::forget(threads);
    switch_away();
    unreachable!("a thread that has ended goes on")
}

/// Saves the registers that a call keeps and the stack pointer at `from`, and goes on at `to`.
///
/// # Safety
/// `from` is writable; `to` is a stack pointer that this function saved, or a new thread's.
#[unsafe(naked)]
unsafe extern "C" fn switch(from: *mut usize, to: usize) {
    naked_asm!(
        "push rbp; push rbx; push r12; push r13; push r14; push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15; pop r14; pop r13; pop r12; pop rbx; pop rbp",
        "ret",
    )
}
