//! Stacks, each below a page that is not mapped: an overflow is a page fault, not a surprise.
//!
//! A stack that is given back stays mapped and is given out again, so no CPU ever has to forget
//! a mapping.

use super::space;
use alloc::vec::Vec;
use core::ops::Range;
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
    /// Given back, by order.
    free: [Vec<u64>; ORDERS],
}

static POOL: Mutex<Pool> = Mutex::new(Pool { next: 0, free: [const { Vec::new() }; ORDERS] });

/// A stack of one CPU or thread.
pub struct Stack {
    top: u64,
    order: u8,
}

impl Stack {
    /// A stack of `4096 << order` bytes; `order` is 3 at most.
    pub fn new(order: u8) -> Option<Self> {
        let mut pool = POOL.lock();
        if let Some(top) = pool.free.get_mut(usize::from(order))?.pop() {
            return Some(Self { top, order });
        }
        if pool.next >= MOST {
            return None;
        }
        let size = 4096u64 << order;
        let top = STACKS + (pool.next + 1) * STRIDE;
        let frame = space::stack_frame(order)?;
        space::map(top - size, frame, size, Rights::DATA)?;
        pool.next += 1;
        Some(Self { top, order })
    }

    /// One more than its highest address.
    pub fn top(&self) -> usize {
        usize::try_from(self.top).unwrap_or(0)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(free) = POOL.lock().free.get_mut(usize::from(self.order)) {
            free.push(self.top);
        }
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
