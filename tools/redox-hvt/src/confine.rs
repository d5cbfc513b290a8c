//! The tender gives up what it does not need any more, before the guest's first instruction.
//!
//! On KVM this is the process that answers hypercalls; beside a sandbox it is the supervisor,
//! which only waits, tells how the guest ended, and kills it.

use crate::tell;
use host_linux::confine::filter::compile;
use host_linux::confine::{Outcome, Rule, privileges};
use rustix::fd::BorrowedFd;

/// What the tender does with a core file at the guest's end.
fn dump_rules() -> Vec<Rule> {
    let why = "make and write a core file";
    [libc::SYS_openat, libc::SYS_pwrite64, libc::SYS_ftruncate, libc::SYS_mincore, libc::SYS_getpid]
        .map(|call| Rule::any(call, why))
        .into()
}

/// What any tender does until its own end.
fn common_rules() -> Vec<Rule> {
    let memory = "memory for a message or a core file";
    vec![
        Rule::on_fd(libc::SYS_write, 2, "messages"),
        Rule::on_fd(libc::SYS_write, 1, "counters on standard output"),
        Rule::any(libc::SYS_ppoll, "room for either, and the end of a guest's process"),
        Rule::any(libc::SYS_exit_group, "the end"),
        Rule::any(libc::SYS_exit, "the end of the ring's thread"),
        Rule::any(libc::SYS_rt_sigreturn, "back from the handler that notes a signal"),
        Rule::any(libc::SYS_clock_gettime, "a clock that the vDSO cannot read"),
        Rule::any(libc::SYS_futex, "locks, and the guest's starting signal"),
        Rule::any(libc::SYS_brk, memory),
        Rule::any(libc::SYS_munmap, memory),
        Rule::any(libc::SYS_mremap, memory),
        Rule::any(libc::SYS_close, "descriptors at the end"),
        Rule::with(libc::SYS_mmap, 2, 3, memory),
        Rule::with(libc::SYS_madvise, 2, 4, memory),
        Rule::any(libc::SYS_rt_sigprocmask, "the end of the ring's thread"),
        #[cfg(debug_assertions)]
        Rule::with(libc::SYS_fcntl, 1, 1, "the standard library looks before it closes"),
    ]
}

/// Running a vCPU of KVM (Linux `include/uapi/linux/kvm.h`), and its ring's thread.
pub fn kvm_rules() -> Vec<Rule> {
    const RUN: u64 = 0xae80;
    const GET_REGS: u64 = 0x8090_ae81;
    const SET_REGS: u64 = 0x4090_ae82;
    const SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
    let find = "find out where a guest broke its memory's permissions";
    vec![
        Rule::with(libc::SYS_ioctl, 1, RUN, "run the guest"),
        Rule::with(libc::SYS_ioctl, 1, GET_REGS, find),
        Rule::with(libc::SYS_ioctl, 1, SET_REGS, find),
        Rule::with(libc::SYS_ioctl, 1, SET_USER_MEMORY_REGION, find),
        Rule::any(libc::SYS_sched_yield, "the ring's thread"),
    ]
}

/// Debugging a vCPU of KVM.
pub fn kvm_debug_rules() -> Vec<Rule> {
    const SET_GUEST_DEBUG: u64 = 0x4048_ae9b;
    const GET_SREGS: u64 = 0x8138_ae83;
    const SET_SREGS: u64 = 0x4138_ae84;
    const GET_FPU: u64 = 0x81a0_ae8c;
    const SET_FPU: u64 = 0x41a0_ae8d;
    const TRANSLATE: u64 = 0xc018_ae85;
    let registers = "registers for a debugger";
    let breakpoint = "breakpoints in the guest's protected text";
    vec![
        Rule::with(libc::SYS_ioctl, 1, SET_GUEST_DEBUG, "steps and breakpoints"),
        Rule::with(libc::SYS_ioctl, 1, GET_SREGS, registers),
        Rule::with(libc::SYS_ioctl, 1, SET_SREGS, registers),
        Rule::with(libc::SYS_ioctl, 1, GET_FPU, registers),
        Rule::with(libc::SYS_ioctl, 1, SET_FPU, registers),
        Rule::with(libc::SYS_ioctl, 1, TRANSLATE, "where a debugger's address is"),
        Rule::with(libc::SYS_mprotect, 2, 0, breakpoint),
        Rule::with(libc::SYS_mprotect, 2, 1, breakpoint),
        Rule::with(libc::SYS_mprotect, 2, 3, breakpoint),
    ]
}

/// The supervisor's work beside a sandbox.
pub fn supervisor_rules() -> Vec<Rule> {
    let why = "wait for the guest's process, and end it";
    [libc::SYS_waitid, libc::SYS_pidfd_send_signal].map(|call| Rule::any(call, why)).into()
}

/// What is kept.
pub struct Keep<'a> {
    /// System calls beside those of any tender.
    pub rules: Vec<Rule>,
    /// A directory in which a core file may be made.
    pub core_directory: Option<BorrowedFd<'a>>,
    /// A file that counters are written to.
    pub stats: Option<BorrowedFd<'a>>,
}

/// Gives up core dumps, capabilities and the file system, but for making a core file. All but the
/// first concern this thread and those that it starts.
pub fn walls(core_directory: Option<BorrowedFd<'_>>, verbose: bool) {
    let walls = [
        ("core dumps", privileges::no_core_dumps()),
        ("capabilities", privileges::no_capabilities()),
        ("landlock", privileges::landlock(core_directory)),
    ];
    for (what, outcome) in walls.into_iter().filter(|_| verbose) {
        tell_outcome(what, outcome);
    }
}

/// Gives up every other system call, in all threads, for good.
///
/// # Errors
/// In words for a person, where the tender must not run so.
pub fn filter(keep: Keep<'_>, verbose: bool) -> Result<(), String> {
    use rustix::fd::AsRawFd;
    let mut rules = common_rules();
    rules.extend(keep.rules);
    if keep.core_directory.is_some() {
        rules.extend(dump_rules());
    }
    if let Some(file) = keep.stats {
        let fd = file.as_raw_fd();
        rules.push(Rule::on_fd(libc::SYS_pwrite64, fd, "counters"));
        rules.push(Rule::on_fd(libc::SYS_ftruncate, fd, "counters"));
    }
    let filter = compile(&rules).map_err(|e| format!("cannot make the system call filter: {e}"))?;
    let seccomp = filter.apply();
    if verbose {
        tell_outcome("system call filter", seccomp.into());
    }
    match seccomp {
        Err(error) if !crate::outside::is_filtered_outside() => {
            Err(format!("cannot confine the tender: seccomp: {error}"))
        }
        // Somebody else's filter is around us, and forbids only that we add one.
        _ => Ok(()),
    }
}

fn tell_outcome(what: &str, outcome: Outcome) {
    match outcome {
        Outcome::Done => tell::warn(format_args!("confined: {what}")),
        Outcome::Refused(error) => tell::warn(format_args!("not confined: {what}: {error}")),
    }
}
