//! The page through which a guest's process tells its supervisor how the guest ended.
//!
//! The guest can write to it: everything read from it is the guest's word about itself, bounded
//! and cleaned before a person sees it. The page also holds the starting signal, which goes the
//! other way.

#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use hypervisor::memory::Gpa;
use hypervisor::vcpu::{BackendError, Ending, Line, line};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::thread::futex;

const PAGE: usize = 4096;

const NOTHING: u32 = 0;
const EXIT: u32 = 1;
const FAULT: u32 = 2;
const RUNNER_FAILED: u32 = 3;

const HELD: u32 = 0;
const GO: u32 = 1;
const ASLEEP: u32 = 2;

#[repr(C)]
struct Page {
    kind: AtomicU32,
    status: AtomicU32,
    cookie: AtomicU64,
    len: AtomicU32,
    gate: AtomicU32,
    text: [AtomicU8; 172],
}

/// The shared page. It is inherited across a fork and unmapped by each process for itself.
pub struct Report {
    page: NonNull<Page>,
}

// SAFETY: the page is atomics only.
unsafe impl Send for Report {}
// SAFETY: as above.
unsafe impl Sync for Report {}

impl Report {
    /// Maps a page that a forked child shares.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new() -> Result<Self, BackendError> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe { mmap_anonymous(core::ptr::null_mut(), PAGE, prot, MapFlags::SHARED) };
        let page = page.map_err(|e| BackendError::new(format!("no memory for a page: {e}")))?;
        let page = NonNull::new(page.cast()).ok_or_else(|| BackendError::new("mapped at 0"))?;
        Ok(Self { page })
    }

    fn page(&self) -> &Page {
        // SAFETY: mapped until drop, zeroed at first, and only atomics.
        unsafe { self.page.as_ref() }
    }

    /// The guest's side: how it ended.
    pub fn set(&self, ending: &Ending) {
        let page = self.page();
        let kind = match ending {
            Ending::Exit { status, cookie } => {
                page.status.store(status.cast_unsigned(), Ordering::Relaxed);
                page.cookie.store(cookie.map_or(0, |c| c.0), Ordering::Relaxed);
                EXIT
            }
            Ending::Fault(text) => {
                self.set_text(text);
                FAULT
            }
            Ending::Interrupted => NOTHING,
        };
        page.kind.store(kind, Ordering::Release);
    }

    /// The guest's side, before the guest runs: it could not be set up.
    pub fn set_failure(&self, text: &str) {
        self.set_text(text);
        self.page().kind.store(RUNNER_FAILED, Ordering::Release);
    }

    fn set_text(&self, text: &str) {
        let page = self.page();
        let len = text.len().min(page.text.len());
        for (to, from) in page.text.iter().zip(text.bytes()) {
            to.store(from, Ordering::Relaxed);
        }
        page.len.store(u32::try_from(len).unwrap_or(0), Ordering::Relaxed);
    }

    /// The supervisor's side, after the guest's process has gone: its last word, if it left one.
    ///
    /// # Errors
    /// If the process could not set itself up.
    pub fn get(&self) -> Result<Option<Ending>, BackendError> {
        let page = self.page();
        Ok(match page.kind.load(Ordering::Acquire) {
            EXIT => {
                let status = page.status.load(Ordering::Relaxed).cast_signed();
                let cookie = page.cookie.load(Ordering::Relaxed);
                Some(Ending::Exit { status, cookie: (cookie != 0).then_some(Gpa(cookie)) })
            }
            FAULT => Some(Ending::Fault(self.text())),
            RUNNER_FAILED => return Err(BackendError::new(self.text().as_str())),
            _ => None,
        })
    }

    /// The text with everything replaced that could disturb a terminal.
    fn text(&self) -> Line {
        let page = self.page();
        let len = usize::try_from(page.len.load(Ordering::Relaxed)).unwrap_or(0);
        let mut text = Line::new();
        for byte in page.text.iter().take(len) {
            let byte = byte.load(Ordering::Relaxed);
            let clean =
                if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '?' };
            if text.try_push(clean).is_err() {
                return line(format_args!("{text}"));
            }
        }
        text
    }

    /// Where [`Report::wait_for_start`] waits, for the filter that lets it.
    pub fn gate_address(&self) -> u64 {
        (&raw const self.page().gate) as u64
    }

    /// The guest's side: returns when the supervisor has given the starting signal.
    pub fn wait_for_start(&self) {
        let gate = &self.page().gate;
        for _ in 0..20_000 {
            if gate.load(Ordering::Acquire) == GO {
                return;
            }
            core::hint::spin_loop();
        }
        let _ = gate.compare_exchange(HELD, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        while gate.load(Ordering::Acquire) != GO {
            // A wrong wake-up or an error only means another look.
            let _ = futex::wait(gate, futex::Flags::empty(), ASLEEP, None);
        }
    }

    /// The supervisor's side: gives the starting signal.
    pub fn start(&self) {
        let gate = &self.page().gate;
        if gate.swap(GO, Ordering::AcqRel) == ASLEEP {
            let _ = futex::wake(gate, futex::Flags::empty(), 1);
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.page.as_ptr().cast(), PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_come_through() {
        let report = Report::new().unwrap();
        assert_eq!(report.get(), Ok(None));
        for ending in [
            Ending::Exit { status: -1, cookie: None },
            Ending::Exit { status: 255, cookie: Some(Gpa(0x1234)) },
            Ending::Fault(line(format_args!("it was {}", 1))),
        ] {
            report.set(&ending);
            assert_eq!(report.get(), Ok(Some(ending)));
        }
        report.set_failure("no");
        assert!(report.get().is_err());
    }

    #[test]
    fn a_lying_guest_cannot_disturb_the_terminal() {
        let report = Report::new().unwrap();
        report.set(&Ending::Fault(line(format_args!("\x1b[2J\u{e9}\n"))));
        report.page().len.store(u32::MAX, Ordering::Relaxed);
        let Ok(Some(Ending::Fault(text))) = report.get() else { panic!("not a fault") };
        assert!(text.starts_with("?[2J???") && text.is_ascii(), "{text}");
    }
}
