//! Turns a freshly forked process into a guest.
//!
//! Everything that allocates is done before the fork, in [`Prepared::new`]. After it,
//! [`become_guest`] goes through the steps in order, each irrevocable, and never returns: move
//! guest memory to its place, close what is not the guest's, forget the host's environment, trap
//! handlers, system call filter, wait for the starting signal, first instruction.

#![allow(unsafe_code)]

use crate::emulate::Cpu;
use crate::layout::{GUEST_BASE, LOWEST, STUB_DATA, STUBS};
use crate::monitor::{Monitor, exit_group, fast, patch::Patcher, signal};
use crate::report::Report;
use crate::{Child, filter};
use core::ops::Range;
use host_linux::confine::filter::Program;
use host_linux::confine::privileges;
use hypervisor::memory::{GuestMemory, Perms};
use hypervisor::vcpu::{BackendError, X86State, line};
use rustix::fd::{AsRawFd, RawFd};
use rustix::io::Errno;
use rustix::mm::{MprotectFlags, MremapFlags, mprotect, mremap_fixed};
use rustix::process::{Pid, getpid, getppid};
use std::sync::Arc;

/// A guest's process, ready to be forked off.
pub struct Prepared {
    monitor: Box<Monitor>,
    source: *mut u8,
    len: usize,
    state: X86State,
    keep: Vec<RawFd>,
    filter: Program,
    report: Arc<Report>,
    parent: Pid,
}

impl Prepared {
    /// Does everything that can be done, and fail, before the fork.
    ///
    /// # Errors
    /// If the memory is not one block, or the filter cannot be made.
    pub fn new(child: Child<'_>, report: Arc<Report>) -> Result<Self, BackendError> {
        let [block] = child.memory.blocks() else {
            return Err(BackendError::new("a sandbox has one block of memory"));
        };
        let range = block.range();
        let len = usize::try_from(range.end - range.start)
            .map_err(|_| BackendError::new("guest memory does not fit this host"))?;
        let file = child.file.as_raw_fd();
        // SAFETY: used only in the child, after `move_memory` has put the block there.
        let memory = unsafe { child.memory.rebased(|b| b.range().start as *mut u8) };
        let mut keep = child.config.descriptors.clone();
        keep.push(file);
        keep.sort_unstable();
        keep.dedup();
        let patchable = (!child.config.keep_code && range.end >= GUEST_BASE).then_some(file);
        let monitor = Box::new(Monitor {
            memory,
            handler: child.handler,
            cpu: Cpu::new(&child.state),
            report: Arc::clone(&report),
            patcher: Patcher::new(patchable),
        });
        Ok(Self {
            monitor,
            source: block.host(),
            len,
            state: child.state,
            keep,
            filter: filter::program(child.config, file, &report)?,
            report,
            parent: getpid(),
        })
    }

    /// Where the guest's process will have the monitor's [`Cpu`].
    pub fn cpu_address(&self) -> usize {
        (&raw const self.monitor.cpu).addr()
    }
}

/// The child's life. It ends in the guest's, or with a word in the report.
pub fn become_guest(prepared: Prepared) -> ! {
    let report = Arc::clone(&prepared.report);
    let (what, errno) = steps(prepared);
    report.set_failure(&line(format_args!("cannot set up the guest's process: {what}: {errno}")));
    exit_group()
}

type Failure = (&'static str, Errno);

/// Comes back only with what went wrong.
fn steps(prepared: Prepared) -> Failure {
    let Prepared { monitor, source, len, state, keep, filter, report, parent } = prepared;
    let result = (|| {
        die_with(parent)?;
        move_memory(source, len)?;
        protect_memory(&monitor.memory)?;
        close_all_but(&keep)?;
        forget_environment();
        leave_signals_to_the_supervisor();
        fast::detect_fsgsbase();
        Monitor::install(monitor);
        signal::install().map_err(|e| ("signal handlers", e))?;
        // Each of these is one more wall where there is one already: the filter alone must hold.
        let _ = privileges::no_core_dumps();
        let _ = privileges::no_stack_growth();
        let _ = privileges::no_capabilities();
        let _ = privileges::landlock(None);
        filter.apply().map_err(|e| ("system call filter", e))
    })();
    if let Err(failure) = result {
        return failure;
    }
    report.wait_for_start();
    // SAFETY: all steps are done.
    unsafe { fast::enter(&state) }
}

/// Ends this process when the supervisor ends, however that happens.
fn die_with(parent: Pid) -> Result<(), Failure> {
    // SAFETY: no memory is involved.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if result != 0 {
        return Err(("PR_SET_PDEATHSIG", Errno::INVAL));
    }
    // It may have ended before we asked.
    if getppid() != Some(parent) {
        exit_group();
    }
    Ok(())
}

/// Moves the inherited mapping of guest memory to its guest-physical address.
fn move_memory(source: *mut u8, len: usize) -> Result<(), Failure> {
    let target = LOWEST as *mut core::ffi::c_void;
    // SAFETY: the source is the whole mapping of the VM; what the target replaces is nothing: a
    // position-independent program has nothing below 4 GiB.
    unsafe { mremap_fixed(source.cast(), len, len, MremapFlags::MAYMOVE, target) }
        .map(drop)
        .map_err(|e| ("guest memory at its addresses (is vm.mmap_min_addr above 65536?)", e))
}

fn protect_memory(memory: &GuestMemory) -> Result<(), Failure> {
    let failed = |e| ("permissions of guest memory", e);
    for (range, perms) in memory.protections() {
        protect(range, flags(perms)).map_err(failed)?;
    }
    if memory.end().0 >= GUEST_BASE {
        let rw = MprotectFlags::READ | MprotectFlags::WRITE;
        protect(STUB_DATA..STUBS.start, rw).map_err(failed)?;
        protect(STUBS, MprotectFlags::READ | MprotectFlags::EXEC).map_err(failed)?;
    }
    Ok(())
}

/// Executable pages are readable too: the monitor decodes what traps there.
fn flags(perms: Perms) -> MprotectFlags {
    let mut flags = MprotectFlags::empty();
    if perms.intersects(Perms::READ | Perms::EXEC) {
        flags |= MprotectFlags::READ;
    }
    if perms.contains(Perms::WRITE) {
        flags |= MprotectFlags::WRITE;
    }
    if perms.contains(Perms::EXEC) {
        flags |= MprotectFlags::EXEC;
    }
    flags
}

fn protect(range: Range<u64>, flags: MprotectFlags) -> Result<(), Errno> {
    let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    // SAFETY: guest memory, in which nothing of the host lives.
    unsafe { mprotect(range.start as *mut core::ffi::c_void, len, flags) }
}

fn close_all_but(keep: &[RawFd]) -> Result<(), Failure> {
    let mut next = 0u32;
    for &fd in keep {
        let fd = u32::try_from(fd).map_err(|_| ("a descriptor", Errno::BADF))?;
        if fd > next {
            close_range(next, fd - 1)?;
        }
        next = fd + 1;
    }
    close_range(next, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Failure> {
    // SAFETY: the descriptors of this process that are nobody's any more.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(("close_range (Linux 5.9 and later)", Errno::NOSYS)) }
}

/// Overwrites the environment's strings: a guest can read its process, and must not find a
/// person's secrets there.
fn forget_environment() {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: this process has one thread, and nothing in it reads the environment any more. The
    // list ends with a null pointer, each string with a zero byte.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let mut byte = *entry;
            while *byte != 0 {
                byte.write_volatile(0);
                byte = byte.add(1);
            }
            entry = entry.add(1);
        }
    }
}

/// A terminal sends its signals to all processes of a job; only the supervisor acts on them.
fn leave_signals_to_the_supervisor() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: ignoring a signal involves no memory.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
