//! Failures of the guest's disks and networks, for standard error.
//!
//! Where the tender itself serves the guest, each is told at once. Where a process beside it does,
//! that process can write to nobody: it leaves its lines in memory that both share, and the tender
//! tells them when the guest has ended. That memory is the guest's word: bounded, and cleaned before a person sees it.

use crate::tell;
use hypervisor::host::Notices;
use hypervisor::vcpu::line;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::fmt::Arguments;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

/// Lines that are kept: a few for each of a few devices.
const LINES: usize = 32;
/// Bytes of a line.
const BYTES: usize = 120;

/// What both processes see.
struct Shared {
    taken: AtomicUsize,
    /// Bytes of each line; 0 until it is there.
    lengths: [AtomicU8; LINES],
    bytes: [[AtomicU8; BYTES]; LINES],
}

/// Takes failures and tells them.
pub struct Troubles {
    shared: &'static Shared,
    /// Lines that have been told.
    told: AtomicUsize,
    /// The process that takes them is not the tender's.
    beside: AtomicBool,
}

impl Troubles {
    /// None so far.
    ///
    /// # Errors
    /// In words for a person.
    #[allow(unsafe_code)]
    pub fn new() -> Result<Self, String> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let len = size_of::<Shared>();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::SHARED) }
            .map_err(|e| format!("no memory for messages: {e}"))?;
        // SAFETY: zeroed, large enough, page-aligned, never unmapped, and only atomics.
        let shared = unsafe { &*at.cast::<Shared>() };
        let (told, beside) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Self { shared, told, beside })
    }

    /// From now on a process beside this one takes them.
    pub fn set_beside(&self) {
        self.beside.store(true, Ordering::Relaxed);
    }

    /// Tells what has been left since the last time.
    pub fn tell(&self) {
        loop {
            let index = self.told.load(Ordering::Relaxed);
            let Some(length) = self.shared.lengths.get(index) else { return };
            let length = usize::from(length.load(Ordering::Acquire));
            if length == 0 {
                return;
            }
            let text: String = self.shared.bytes[index]
                .iter()
                .take(length)
                .map(|byte| char::from(byte.load(Ordering::Relaxed)))
                .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
                .collect();
            tell::warn(text);
            self.told.store(index + 1, Ordering::Relaxed);
        }
    }
}

impl Notices for Troubles {
    /// Allocates nothing in a process beside.
    fn notice(&self, text: Arguments<'_>) {
        if !self.beside.load(Ordering::Relaxed) {
            return tell::warn(text);
        }
        let index = self.shared.taken.fetch_add(1, Ordering::Relaxed);
        let Some(to) = self.shared.bytes.get(index) else { return };
        let line = line(text);
        let mut length = 0u8;
        for (to, from) in to.iter().zip(line.bytes()) {
            to.store(from, Ordering::Relaxed);
            length += 1;
        }
        self.shared.lengths[index].store(length, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wait_to_be_told_and_have_a_limit() {
        let troubles = Troubles::new().unwrap();
        troubles.set_beside();
        (0..100).for_each(|number| troubles.notice(format_args!("{number} {}", "x".repeat(300))));
        let told = || troubles.told.load(Ordering::Relaxed);
        assert_eq!(told(), 0);
        troubles.tell();
        assert_eq!(told(), LINES);
        // What a guest may have written there is bounded, too.
        troubles.shared.lengths[3].store(255, Ordering::Relaxed);
        troubles.told.store(3, Ordering::Relaxed);
        troubles.tell();
        assert_eq!(told(), LINES);
    }
}
