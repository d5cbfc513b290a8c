//! Who owns the host memory behind guest RAM.

#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::cell::UnsafeCell;

/// Keeps a piece of host memory mapped until the last clone is dropped: an `mmap`ed region, a
/// window of addresses, a heap allocation.
pub type Backing = Arc<dyn Send + Sync>;

/// Zeroed words on the heap that are reached by a raw pointer only.
pub(super) struct Words(Box<[UnsafeCell<u64>]>);

// SAFETY: nothing here makes a reference to the words; guest memory is accessed by volatile or
// atomic operations.
unsafe impl Sync for Words {}

impl Words {
    pub(super) fn zeroed(count: usize) -> Self {
        let words = Box::into_raw(vec![0u64; count].into_boxed_slice());
        // SAFETY: the box just made, and `UnsafeCell` has the layout of what it holds.
        Self(unsafe { Box::from_raw(words as *mut [UnsafeCell<u64>]) })
    }

    /// Where they begin.
    pub(super) fn start(&self) -> *mut u8 {
        UnsafeCell::raw_get(self.0.as_ptr()).cast()
    }
}
