//! The bytes of the instruction that has left the guest.
//!
//! A processor without next-RIP saving or decode assists does not tell them: they are read from the
//! guest's memory, through its own page tables. Exits come from the same few pages of code again
//! and again, so the ways to these are remembered. A remembered way is not believed: at each use
//! all of its entries are read again, and it counts only while each is what it was, which is what
//! another walk would find out. So it needs no flushing, and is never staler than a walk.

#![allow(unsafe_code)]

use crate::x86_64::decode::MAX_LEN;
use crate::x86_64::memory::PAGE;
use crate::x86_64::space::{Step, Way, read_u64};

/// Bytes that are looked at: an instruction has up to 15.
pub(super) const WINDOW: u64 = 16;
/// Pages whose ways are remembered.
const PAGES: usize = 8;

/// Bytes of code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Code {
    /// As two words; what is beyond `len` is 0.
    words: [u64; 2],
    len: usize,
}

impl Code {
    /// Of 16 bytes the 15 that an instruction may have.
    pub fn whole(words: [u64; 2]) -> Self {
        Self { words: [words[0], words[1] << 8 >> 8], len: MAX_LEN }
    }

    /// The same, where the host has them.
    ///
    /// # Safety
    /// 16 bytes from there are RAM that is mapped for the host.
    #[inline]
    pub unsafe fn read(at: *const u8) -> Self {
        // SAFETY: as the caller promises.
        Self::whole(unsafe { [read_u64(at), read_u64(at.wrapping_add(8))] })
    }

    /// These bytes behind the ones that are there, as far as there is room.
    pub fn append(&mut self, bytes: &[u8]) {
        let mut all = self.all();
        for (to, byte) in all.iter_mut().take(MAX_LEN).skip(self.len).zip(bytes) {
            *to = *byte;
            self.len += 1;
        }
        let [low, high] = [0, 8].map(|at| all.iter().skip(at).take(8).rev());
        self.words = [low, high].map(|bytes| bytes.fold(0, |word, b| word << 8 | u64::from(*b)));
    }

    /// How many bytes may follow.
    pub fn room(&self) -> usize {
        MAX_LEN - self.len
    }

    /// The first four.
    pub fn start(&self) -> u32 {
        crate::x86_64::processor::halves(self.words[0])[0]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// All 16, of which the first [`Code::len`] count.
    pub fn all(&self) -> [u8; 16] {
        (u128::from(self.words[0]) | u128::from(self.words[1]) << 64).to_le_bytes()
    }
}

/// Ways to pages of code in 64-bit mode.
#[derive(Debug)]
pub(super) struct CodePages([Page; PAGES]);

/// The way to one page.
#[derive(Debug, Clone, Copy)]
struct Page {
    /// Its linear address, with the privilege level that it was looked up for in the low bits.
    key: u64,
    cr3: u64,
    steps: [Step; 4],
    /// Where the host has the page.
    host: *const u8,
}

impl Page {
    /// A key of no page: no privilege level is so high.
    const NO_KEY: u64 = u64::MAX;
    const NONE: Self = Self {
        key: Self::NO_KEY,
        cr3: 0,
        steps: [Step { at: core::ptr::null(), value: 0 }; 4],
        host: core::ptr::null(),
    };
}

// SAFETY: the pointers are to the RAM of the vCPU's VM, which any thread may read.
unsafe impl Send for CodePages {}

impl Default for CodePages {
    fn default() -> Self {
        Self([Page::NONE; PAGES])
    }
}

/// The key, the place and the offset of an address of code.
#[inline]
fn split(rip: u64, cpl: u8) -> (u64, usize, u64) {
    let offset = rip % PAGE;
    let number = usize::try_from(rip / PAGE).unwrap_or(0);
    ((rip - offset) | u64::from(cpl), number % PAGES, offset)
}

impl CodePages {
    /// Where the host has 16 bytes of code, if the way there is known and still right.
    #[inline(always)]
    pub fn find(&self, cr3: u64, rip: u64, cpl: u8) -> Option<*const u8> {
        let (key, place, offset) = split(rip, cpl);
        let page = self.0.get(place)?;
        if page.key != key || page.cr3 != cr3 || offset > PAGE - WINDOW {
            return None;
        }
        // SAFETY: `remember` was promised that these are mapped as long as this is used.
        let same = |step: &Step| unsafe { read_u64(step.at) } == step.value;
        let [a, b, c, d] = &page.steps;
        let right = same(a) && same(b) && same(c) && same(d);
        right.then(|| page.host.wrapping_add(usize::try_from(offset).unwrap_or(0)))
    }

    /// Remembers a way that [`crate::x86_64::space::Paging::way_to_code`] has found, and where the
    /// host has what it leads to.
    ///
    /// # Safety
    /// The steps and the 4096 bytes of the page around `host` are mapped for the host as long as
    /// `self` is used.
    pub unsafe fn remember(&mut self, cr3: u64, rip: u64, cpl: u8, way: &Way, host: *const u8) {
        let (key, place, offset) = split(rip, cpl);
        if let Some(page) = self.0.get_mut(place) {
            let host = host.wrapping_sub(usize::try_from(offset).unwrap_or(0));
            *page = Page { key, cr3, steps: way.steps, host };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn code_grows_as_its_pages_are_found() {
        let mut code = Code::default();
        code.append(&[1, 2, 3]);
        assert_eq!((code.len(), code.room(), code.start()), (3, 12, 0x03_0201));
        code.append(&[9; 20]);
        assert_eq!(code.len(), 15);
        assert_eq!(code.all(), [1, 2, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 0]);
        let bytes = code.all();
        // SAFETY: 16 bytes of this function's own.
        assert_eq!(unsafe { Code::read(bytes.as_ptr()) }, code);
    }

    #[test]
    fn a_way_counts_while_its_entries_are_what_they_were() {
        let tables = [1, 2, 3, 4].map(AtomicU64::new);
        let code = [0u8; 4096];
        let mut steps = [1, 2, 3, 4].map(|value| Step { at: core::ptr::null(), value });
        for (step, entry) in steps.iter_mut().zip(&tables) {
            step.at = entry.as_ptr().cast_const().cast();
        }
        let mut pages = CodePages::default();
        let rip = 0xffff_8000_0000_5123;
        let host = code.as_ptr().wrapping_add(0x123);
        assert_eq!(pages.find(7, rip, 0), None);
        // SAFETY: both arrays outlive it.
        unsafe { pages.remember(7, rip, 0, &Way { steps, gpa: 0 }, host) };
        assert_eq!(pages.find(7, rip, 0), Some(host));
        assert_eq!(pages.find(7, rip + 0x800, 0), Some(host.wrapping_add(0x800)));
        for (cr3, rip, cpl) in [(8, rip, 0), (7, rip, 3), (7, rip + 0x8000, 0), (7, rip | 0xff8, 0)]
        {
            assert_eq!(pages.find(cr3, rip, cpl), None);
        }
        for entry in &tables {
            entry.fetch_add(0x1000, Ordering::Relaxed);
            assert_eq!(pages.find(7, rip, 0), None);
            entry.fetch_sub(0x1000, Ordering::Relaxed);
            assert_eq!(pages.find(7, rip, 0), Some(host));
        }
    }
}
