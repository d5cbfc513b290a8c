//! Guest memory whose bytes AddressSanitizer guards.

use hypervisor::memory::{Gpa, GuestMemory, HostBlock, Perms};
use std::ops::Range;

/// Zeroed guest memory that owns its bytes.
pub struct Ram {
    /// The guest's view of it, with its permissions.
    pub memory: GuestMemory,
    /// The same bytes without permissions, to look at what must not have changed.
    all: GuestMemory,
}

impl Ram {
    /// Memory at these addresses, multiples of 8.
    pub fn new(range: Range<u64>) -> Self {
        let len = range.end - range.start;
        let mut memory = GuestMemory::new();
        memory.add(HostBlock::zeroed(Gpa(range.start), len)).expect("the only block");
        Self { all: memory.clone(), memory }
    }

    /// Fills a range with `byte` and takes permissions away from it.
    pub fn close(&mut self, range: Range<u64>, byte: u8, perms: Perms) {
        let bytes = vec![byte; (range.end - range.start) as usize];
        self.all.write_bytes(Gpa(range.start), &bytes).expect("inside of the memory");
        self.memory.protect(range, perms).expect("inside of the memory");
    }

    /// Whether every byte of a range is `byte`, whatever may be done with it.
    pub fn is_filled(&self, range: Range<u64>, byte: u8) -> bool {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.all.read_bytes(Gpa(range.start), &mut bytes).expect("inside of the memory");
        bytes.iter().all(|found| *found == byte)
    }
}
