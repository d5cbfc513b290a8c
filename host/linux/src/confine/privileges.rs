//! Capabilities, core dumps, landlock, descriptors.

#![allow(unsafe_code)]

use super::Outcome;
use crate::sys::syscall;
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};

impl From<Result<(), Errno>> for Outcome {
    fn from(result: Result<(), Errno>) -> Self {
        result.map_or_else(Self::Refused, |()| Self::Done)
    }
}

/// Leaves no core dump behind: it would have the guest's memory in it.
pub fn no_core_dumps() -> Outcome {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).into()
}

/// Gives up all capabilities (capset(2)).
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

/// Gives up the file system, and TCP where the kernel can, for what is not open yet. With
/// `writable`, files may still be made in that directory.
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
    if let Some(directory) = writable {
        allow(ruleset, directory, (WRITE_FILE | MAKE_REG | TRUNCATE) & fs)?;
    }
    super::filter::no_new_privileges()?;
    // SAFETY: a descriptor and no flags.
    unsafe { syscall(libc::SYS_landlock_restrict_self, [ruleset, 0, 0, 0, 0, 0]) }?;
    // SAFETY: the descriptor is ours and used no more.
    unsafe { syscall(libc::SYS_close, [ruleset, 0, 0, 0, 0, 0]) }.map(drop)
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
