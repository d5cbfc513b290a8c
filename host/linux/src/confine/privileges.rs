//! Capabilities, core dumps, the stack, landlock, descriptors.

#![allow(unsafe_code)]

use super::Outcome;
use crate::sys::syscall;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

impl From<Result<(), Errno>> for Outcome {
    fn from(result: Result<(), Errno>) -> Self {
        result.map_or_else(Self::Refused, |()| Self::Done)
    }
}

/// Leaves no core dump behind: it would have the guest's memory in it.
pub fn no_core_dumps() -> Outcome {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).into()
}

/// Lets the stack grow no further than a little, whatever `ulimit -s` says: its growth is memory
/// that a process takes without a system call.
pub fn no_stack_growth() -> Outcome {
    // Twice of what Linux maps of a stack at a program's start.
    const BYTES: u64 = 256 << 10;
    setrlimit(Resource::Stack, Rlimit { current: Some(BYTES), maximum: Some(BYTES) }).into()
}

/// Nobody but a privileged user may trace this process or read its memory from outside.
pub fn not_traceable() -> Outcome {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).into()
}

/// Refuses a process in which every readable page is executable (personality(2),
/// READ_IMPLIES_EXEC): no W^X of a guest would hold there.
///
/// # Errors
/// In words for a person.
pub fn check_personality() -> Result<(), String> {
    const ASK: usize = 0xffff_ffff;
    const READ_IMPLIES_EXEC: usize = 0x40_0000;
    // SAFETY: asks only.
    match unsafe { syscall(libc::SYS_personality, [ASK, 0, 0, 0, 0, 0]) } {
        Ok(persona) if persona & READ_IMPLIES_EXEC != 0 => Err(format!(
            "Cowardly refusing to run with a personality of {persona:#x}: it has \
             READ_IMPLIES_EXEC, so all memory would be executable; start without `setarch -X`"
        )),
        // Where an outer filter forbids to ask, it also forbids to change it.
        _ => Ok(()),
    }
}

/// Closes every descriptor but these (close_range(2), Linux 5.9). Allocates nothing.
///
/// # Safety
/// Nothing in this process may use the closed ones any more.
pub unsafe fn close_all_but(keep: &mut [RawFd]) -> Outcome {
    keep.sort_unstable();
    let mut next = 0;
    for fd in keep.iter().filter_map(|&fd| usize::try_from(fd).ok()) {
        // SAFETY: the caller's promise.
        let closed = if fd > next { unsafe { close_range(next, fd - 1) } } else { Ok(()) };
        if let Err(e) = closed {
            return Outcome::Refused(e);
        }
        next = fd + 1;
    }
    // SAFETY: the caller's promise.
    unsafe { close_range(next, 0xffff_ffff) }.into()
}

/// # Safety
/// As for [`close_all_but`].
unsafe fn close_range(first: usize, last: usize) -> Result<(), Errno> {
    // SAFETY: no memory is involved; the descriptors are the caller's promise.
    unsafe { syscall(libc::SYS_close_range, [first, last, 0, 0, 0, 0]) }.map(drop)
}

/// Gives up all capabilities (capset(2)) of this thread; what another thread has it keeps.
pub fn no_capabilities() -> Outcome {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header { version: VERSION_3, pid: 0 };
    let none = [[0u32; 3]; 2];
    let args = [&raw const header as usize, &raw const none as usize, 0, 0, 0, 0];
    // SAFETY: both structures are the kernel's and valid for the call.
    unsafe { syscall(libc::SYS_capset, args) }.map(drop).into()
}

/// Landlock's access rights of the file system (Linux `include/uapi/linux/landlock.h`), by ABI.
const FS_RIGHTS: [u64; 5] =
    [(1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1, (1 << 15) - 1, (1 << 16) - 1];
/// bind and connect of TCP, from ABI 4 on.
const NET_RIGHTS: u64 = 3;
const WRITE_FILE: u64 = 1 << 1;
const MAKE_REG: u64 = 1 << 8;
const TRUNCATE: u64 = 1 << 14;

/// Gives up the file system, and TCP where the kernel can, for what is not open yet, in this
/// thread and those that it starts. With `writable`, files may still be made in that directory.
pub fn landlock(writable: Option<BorrowedFd<'_>>) -> Outcome {
    restrict(writable).into()
}

fn restrict(writable: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    const CREATE_RULESET_VERSION: usize = 1;
    // SAFETY: asks for a number.
    let abi = unsafe {
        syscall(libc::SYS_landlock_create_ruleset, [0, 0, CREATE_RULESET_VERSION, 0, 0, 0])
    }?;
    let fs = FS_RIGHTS[abi.clamp(1, FS_RIGHTS.len()) - 1];
    let net = if abi >= 4 { NET_RIGHTS } else { 0 };
    let attributes = [fs, net];
    let size = if abi >= 4 { 16 } else { 8 };
    let args = [attributes.as_ptr() as usize, size, 0, 0, 0, 0];
    // SAFETY: the structure is the kernel's and valid for the call.
    let ruleset = unsafe { syscall(libc::SYS_landlock_create_ruleset, args) }?;
    let number = RawFd::try_from(ruleset).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just opened it for us.
    let _owner = unsafe { OwnedFd::from_raw_fd(number) };
    if let Some(directory) = writable {
        allow(ruleset, directory, (WRITE_FILE | MAKE_REG | TRUNCATE) & fs)?;
    }
    super::filter::no_new_privileges()?;
    // SAFETY: a descriptor and no flags.
    unsafe { syscall(libc::SYS_landlock_restrict_self, [ruleset, 0, 0, 0, 0, 0]) }.map(drop)
}

fn allow(ruleset: usize, directory: BorrowedFd<'_>, rights: u64) -> Result<(), Errno> {
    #[repr(C, packed)]
    struct PathBeneath {
        rights: u64,
        fd: RawFd,
    }
    const RULE_PATH_BENEATH: usize = 1;
    let rule = PathBeneath { rights, fd: directory.as_raw_fd() };
    let args = [ruleset, RULE_PATH_BENEATH, &raw const rule as usize, 0, 0, 0];
    // SAFETY: the structure is the kernel's and valid for the call.
    unsafe { syscall(libc::SYS_landlock_add_rule, args) }.map(drop)
}

#[cfg(test)]
mod tests;
