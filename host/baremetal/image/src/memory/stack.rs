//! Stacks, each below a page that is not mapped: an overflow is a page fault, not a surprise.
//!
//! A stack that is given back stays mapped and is given out again, so no CPU ever has to forget
//! a mapping.

use super::space;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use host_baremetal::paging::Rights;
use hypervisor::sync::Mutex;

/// Where stacks are.
const STACKS: u64 = 0xffff_a000_0000_0000;
/// From one to the next; the lower part of it is the guard.
const STRIDE: u64 = 64 << 10;
/// As many as there can be.
const MOST: u64 = 1 << 20;
/// The largest order: half of the stride.
const ORDERS: usize = 4;

struct Pool {
    next: u64,
    /// By order.
    stacks: [Stacks; ORDERS],
}

/// Stacks of one size.
struct Stacks {
    /// Tops of those that nobody uses. It has room for all that were made.
    free: Vec<u64>,
    made: u32,
    /// How many may be in use at once. There are always as many.
    promised: u32,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    next: 0,
    stacks: [const { Stacks { free: Vec::new(), made: 0, promised: 0 } }; ORDERS],
});

impl Pool {
    fn of(&mut self, order: u8) -> Option<&mut Stacks> {
        self.stacks.get_mut(usize::from(order))
    }

    /// Makes a stack, which is free.
    fn make(&mut self, order: u8) -> Option<()> {
        if self.next >= MOST {
            return None;
        }
        let size = 4096u64 << order;
        let top = STACKS + (self.next + 1) * STRIDE;
        let stacks = self.of(order)?;
        let more = usize::try_from(stacks.made).unwrap_or(0) + 1 - stacks.free.len();
        stacks.free.try_reserve(more).ok()?;
        let frame = space::stack_frame(order)?;
        if space::map(top - size, frame, size, Rights::DATA).is_none() {
            // SAFETY: from there with this order; a part of it that was mapped is mapped anew before
            // it is used.
            unsafe { super::release(frame, order) };
            return None;
        }
        self.next += 1;
        let stacks = self.of(order)?;
        stacks.made += 1;
        stacks.free.push(top);
        Some(())
    }

    fn promise(&mut self, order: u8, count: u32) -> Option<()> {
        let wanted = self.of(order)?.promised.checked_add(count)?;
        while self.of(order)?.made < wanted {
            self.make(order)?;
        }
        self.of(order)?.promised = wanted;
        Some(())
    }
}

/// So many stacks of one size, to be used at once: they are there from now on.
pub struct Promised {
    order: u8,
    count: u32,
    used: AtomicU32,
}

impl Promised {
    /// `count` stacks of `4096 << order` bytes; `order` is 3 at most. `None` where there is no
    /// memory.
    pub fn new(order: u8, count: u32) -> Option<Self> {
        POOL.lock().promise(order, count)?;
        Some(Self { order, count, used: AtomicU32::new(0) })
    }

    /// One of them. `None` while all are in use.
    pub fn take(self: &Arc<Self>) -> Option<Stack> {
        let mut pool = POOL.lock();
        if self.used.load(Ordering::Relaxed) >= self.count {
            return None;
        }
        let top = pool.of(self.order)?.free.pop()?;
        self.used.fetch_add(1, Ordering::Relaxed);
        drop(pool);
        Some(Stack { top, promise: self.clone() })
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        if let Some(stacks) = POOL.lock().of(self.order) {
            stacks.promised = stacks.promised.saturating_sub(self.count);
        }
    }
}

/// A stack of one CPU or thread.
pub struct Stack {
    top: u64,
    promise: Arc<Promised>,
}

impl Stack {
    /// A stack of `4096 << order` bytes; `order` is 3 at most.
    pub fn new(order: u8) -> Option<Self> {
        Arc::new(Promised::new(order, 1)?).take()
    }

    /// One more than its highest address.
    pub fn top(&self) -> usize {
        usize::try_from(self.top).unwrap_or(0)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let mut pool = POOL.lock();
        if let Some(stacks) = pool.of(self.promise.order) {
            stacks.free.push(self.top);
        }
        self.promise.used.fetch_sub(1, Ordering::Relaxed);
    }
}

unsafe extern "C" {
    static boot_stack_guard: u8;
}

/// Whether an address that is not mapped is a stack's guard.
pub fn is_guard(at: u64) -> bool {
    let boot = (&raw const boot_stack_guard).addr() as u64;
    let all: [Range<u64>; 2] = [boot..boot + 4096, STACKS..STACKS + MOST * STRIDE];
    all.iter().any(|range| range.contains(&at))
}
