//! What interrupts a run from outside: signals. And the counters that one of them asks for.

use crate::report::{StatsFile, Times};
use crate::tell;
use host_linux::clock::monotonic_ns;
use host_linux::gdb;
use host_linux::signals;
use host_linux::wait::OnSignal;
use hypervisor::modes::hvt::service::HostEvents;
use hypervisor::modes::hvt::stats::Stats;
use hypervisor::vcpu::{Answer, Ending, VmEntry};
use rustix::fd::BorrowedFd;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};

/// The run as seen from outside.
pub struct Events {
    stats: Option<(StatsFile, &'static Stats)>,
    start_ns: u64,
    boot_ns: AtomicU64,
    backend: OnceLock<&'static str>,
    last_signal: AtomicI32,
    /// A debugger has said something that nobody has heard yet.
    debugger: AtomicBool,
}

impl Events {
    /// With counters, if there is a file for them.
    ///
    /// # Errors
    /// In words for a person.
    pub fn new(file: Option<StatsFile>, start_ns: u64) -> Result<Self, String> {
        let stats = file.map(|file| shared_stats().map(|stats| (file, stats))).transpose()?;
        Ok(Self {
            stats,
            start_ns,
            boot_ns: AtomicU64::new(0),
            backend: OnceLock::new(),
            last_signal: AtomicI32::new(0),
            debugger: AtomicBool::new(false),
        })
    }

    /// The counters, where they are kept.
    pub fn stats(&self) -> Option<&'static Stats> {
        self.stats.as_ref().map(|(_, stats)| *stats)
    }

    /// The descriptor that they are written to.
    pub fn stats_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stats.as_ref().map(|(file, _)| file.fd())
    }

    /// Notes the backend, for the counters.
    pub fn set_backend(&self, name: &'static str) {
        let _ = self.backend.set(name);
    }

    /// Notes that the guest is let go now.
    pub fn booted(&self) {
        self.boot_ns.store(monotonic_ns(), Relaxed);
    }

    /// The signal that ended the run.
    pub fn last_signal(&self) -> i32 {
        self.last_signal.load(Relaxed)
    }

    /// Writes the counters, if they are kept.
    pub fn write_stats(&self) {
        let Some((file, stats)) = &self.stats else { return };
        let boot_ns = self.boot_ns.load(Relaxed);
        let times = Times { start_ns: self.start_ns, boot_ns, now_ns: monotonic_ns() };
        if let Err(error) = file.write(stats, self.backend.get().unwrap_or(&"none"), &times) {
            tell::warn(format_args!("cannot write the counters: {error}"));
        }
    }
}

impl Events {
    /// Acts on the signals that have come; says whether one of them ends the run.
    fn act(&self) -> bool {
        while let Some(signal) = signals::take() {
            match signal {
                libc::SIGUSR1 => self.write_stats(),
                gdb::SIGNAL => self.debugger.store(true, Relaxed),
                _ => {
                    self.last_signal.store(signal, Relaxed);
                    tell::hurry();
                }
            }
        }
        self.last_signal() != 0
    }
}

impl HostEvents for Events {
    fn interrupted(&self) -> Answer {
        let ends = self.act();
        self.debugger.store(false, Relaxed);
        if ends { Answer::End(Ending::Interrupted) } else { Answer::Resume(VmEntry::Continue) }
    }
}

impl OnSignal for Events {
    /// The vCPU's next entry comes back at once, and ends the run, or listens to a debugger.
    fn ends_wait(&self) -> bool {
        self.act() || self.debugger.load(Relaxed)
    }
}

/// Zeroed counters in memory that a forked guest shares; never given back.
#[allow(unsafe_code)]
fn shared_stats() -> Result<&'static Stats, String> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    let len = size_of::<Stats>();
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { mmap_anonymous(std::ptr::null_mut(), len, prot, MapFlags::SHARED) }
        .map_err(|e| format!("no memory for the counters: {e}"))?;
    // SAFETY: zeroed, large enough, page-aligned, never unmapped, and only atomics.
    Ok(unsafe { &*at.cast::<Stats>() })
}
