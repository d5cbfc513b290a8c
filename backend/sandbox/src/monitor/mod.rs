//! The monitor: the host's code in the guest's process.
//!
//! It runs only when the guest traps: in a signal handler ([`signal`]), or, for a hypercall site
//! that has been rewritten ([`patch`]), by a jump ([`fast`]). It shares the address space with
//! the guest, which can read, overwrite and jump into it. So it is not a boundary: the system
//! call filter around the process is. What the monitor keeps right is the guest's own view of
//! its machine.
//!
//! There is one vCPU and one thread. Nothing here allocates, locks, panics or uses thread-local
//! storage: FS is the guest's.

#![allow(unsafe_code)]

pub mod fast;
pub mod patch;
pub mod signal;
mod trap;
mod vectors;

use crate::emulate::Cpu;
use crate::report::Report;
use core::sync::atomic::{AtomicPtr, Ordering};
use hypervisor::memory::GuestMemory;
use hypervisor::vcpu::{Answer, Ending, ExitHandler, VmEntry, VmExit};
use patch::Patcher;
use std::sync::Arc;

/// Everything that the monitor knows.
pub struct Monitor {
    /// Guest memory as this process has it: at its guest-physical addresses.
    pub memory: GuestMemory,
    /// Answers the guest's exits.
    pub handler: Arc<dyn ExitHandler>,
    /// The guest's system registers.
    pub cpu: Cpu,
    /// Where the guest's end is told.
    pub report: Arc<Report>,
    /// Rewrites hypercall sites.
    pub patcher: Patcher,
}

/// The monitor of this process, set before the guest starts and never changed after.
static MONITOR: AtomicPtr<Monitor> = AtomicPtr::new(core::ptr::null_mut());

impl Monitor {
    /// Makes this the process's monitor.
    pub fn install(monitor: Box<Self>) {
        MONITOR.store(Box::into_raw(monitor), Ordering::Release);
    }

    /// The process's monitor, for the one trap that is being handled.
    ///
    /// # Safety
    /// Only from the two entrances, which never nest: signals are blocked in a handler, and a
    /// trap inside of the monitor ends the process without coming here.
    unsafe fn current<'a>() -> Option<&'a mut Self> {
        // SAFETY: either null or the leaked box of `install`; unique as the caller promises.
        unsafe { MONITOR.load(Ordering::Acquire).as_mut() }
    }

    /// Lets the handler answer one exit; comes back only if the guest goes on.
    fn answer(&self, exit: VmExit) -> VmEntry {
        match self.handler.handle(exit, &self.memory) {
            Answer::Resume(entry) => entry,
            Answer::End(ending) => self.end(&ending),
        }
    }

    /// Tells the supervisor and ends the process.
    fn end(&self, ending: &Ending) -> ! {
        self.report.set(ending);
        exit_group()
    }
}

/// Ends the process. The status carries nothing: the report does.
pub fn exit_group() -> ! {
    // SAFETY: exit_group(2) does not come back.
    unsafe {
        core::arch::asm!(
            "syscall",
            in("rax") libc::SYS_exit_group,
            in("rdi") 0,
            options(noreturn, nostack)
        )
    }
}
