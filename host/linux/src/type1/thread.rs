//! A vCPU's thread: parked on a futex, kicked by waking that or by a signal.
//!
//! The signal's handler is the backend's: it remembers a kick that comes before the guest is
//! entered. So this remembers it only for a park.

#![allow(unsafe_code)]

use crate::sys::syscall;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::SeqCst};
use hypervisor::modes::type1::host::VcpuThread;
use rustix::thread::futex;
use rustix::time::Timespec;

const ANY: NonZeroU32 = NonZeroU32::MAX;

pub(super) struct Thread {
    signal: i32,
    /// Its number, or 0 where no thread runs the vCPU.
    number: AtomicI32,
    parked: AtomicBool,
    /// 1: a kick has come that no park has ended by.
    kicked: AtomicU32,
}

impl Thread {
    pub(super) fn new(signal: i32) -> Self {
        Self {
            signal,
            number: AtomicI32::new(0),
            parked: AtomicBool::new(false),
            kicked: AtomicU32::new(0),
        }
    }
}

impl VcpuThread for Thread {
    fn enter(&self) {
        self.number.store(rustix::thread::gettid().as_raw_nonzero().get(), SeqCst);
    }

    fn leave(&self) {
        self.number.store(0, SeqCst);
    }

    fn park(&self, until_ns: Option<u64>) {
        self.parked.store(true, SeqCst);
        if self.kicked.swap(0, SeqCst) == 0 {
            let until = until_ns.map(time);
            // Whatever ends it, early or not: a spurious return is legal.
            let _ = futex::wait_bitset(&self.kicked, futex::Flags::PRIVATE, 0, until.as_ref(), ANY);
            self.kicked.store(0, SeqCst);
        }
        self.parked.store(false, SeqCst);
    }

    /// A thread that is seen parked looks around after it, whatever it does next.
    fn kick(&self) {
        self.kicked.store(1, SeqCst);
        if self.parked.load(SeqCst) {
            let _ = futex::wake(&self.kicked, futex::Flags::PRIVATE, 1);
            return;
        }
        let number = self.number.load(SeqCst);
        if let (Ok(number @ 1..), Ok(signal)) = (usize::try_from(number), self.signal.try_into()) {
            let process = rustix::process::getpid().as_raw_nonzero().get();
            let process = usize::try_from(process).unwrap_or(0);
            // SAFETY: no memory is involved; the handler of that signal does no harm to whichever
            // thread of this process it comes to.
            let _ = unsafe { syscall(libc::SYS_tgkill, [process, number, signal, 0, 0, 0]) };
        }
    }
}

fn time(ns: u64) -> Timespec {
    let ns = i64::try_from(ns).unwrap_or(i64::MAX);
    Timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 }
}
