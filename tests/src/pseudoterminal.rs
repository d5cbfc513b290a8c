//! A terminal that a test types at (pty(7)).

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Both ends of a terminal.
pub struct Pseudoterminal {
    /// The end of the person: what is written here is typed, what is read was printed.
    pub person: File,
    program: File,
}

impl Pseudoterminal {
    /// A new one.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> io::Result<Self> {
        // SAFETY: it involves no memory.
        let person = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
        check(person)?;
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        let person = unsafe { File::from_raw_fd(person) };
        let mut name = [0; 64];
        // SAFETY: the descriptor is open; the name is written within its buffer, and ends there.
        let name = unsafe {
            check(libc::grantpt(person.as_raw_fd()))?;
            check(libc::unlockpt(person.as_raw_fd()))?;
            check(libc::ptsname_r(person.as_raw_fd(), name.as_mut_ptr(), name.len()))?;
            CStr::from_ptr(name.as_ptr())
        };
        let name = std::ffi::OsStr::from_bytes(name.to_bytes());
        let program =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name)?;
        Ok(Self { person, program })
    }

    /// What makes it the three standard streams of a command that is to be started (not its
    /// controlling terminal). It must stay open until then.
    pub fn lend(&self) -> impl FnOnce(&mut Command) + use<> {
        let program = self.program.as_raw_fd();
        move |command| {
            // SAFETY: the child makes system calls only.
            unsafe {
                command.pre_exec(move || take(program));
            }
        }
    }

    /// How it is set now: flags of input, output, control and line (termios(3)).
    ///
    /// # Errors
    /// The system's.
    pub fn modes(&self) -> io::Result<[u32; 4]> {
        // SAFETY: all zeros is a value of the structure, which the call fills.
        let modes = unsafe {
            let mut modes: libc::termios = std::mem::zeroed();
            check(libc::tcgetattr(self.program.as_raw_fd(), &raw mut modes))?;
            modes
        };
        Ok([modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag])
    }
}

fn take(program: RawFd) -> io::Result<()> {
    // SAFETY: these calls touch no memory.
    (0..3).try_for_each(|standard| check(unsafe { libc::dup2(program, standard) }))
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
