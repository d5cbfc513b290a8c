//! A guest's console on a descriptor, usually standard output.

#![allow(unsafe_code)]

use crate::confine::Rule;
use hypervisor::host::{Console, HostError};
use hypervisor::memory::GuestSlice;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::{Errno, write};

/// Writes to a descriptor that stays open.
pub struct FdConsole {
    fd: BorrowedFd<'static>,
}

impl FdConsole {
    /// Standard output.
    pub fn stdout() -> Self {
        Self { fd: rustix::stdio::stdout() }
    }

    /// Its descriptor.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The system calls that serving it takes.
    pub fn rules(&self) -> Vec<Rule> {
        vec![
            Rule::on_fd(libc::SYS_write, self.fd(), "console output"),
            Rule::any(libc::SYS_poll, "wait for a console that takes no more at the moment"),
        ]
    }
}

impl Console for FdConsole {
    fn write(&self, text: GuestSlice<'_>) -> Result<(), HostError> {
        // SAFETY: only the kernel reads through it, during the call.
        let mut rest = unsafe { core::slice::from_raw_parts(text.as_ptr(), text.len()) };
        while !rest.is_empty() {
            match write(self.fd, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let _ = poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], None);
                }
                Err(e) => {
                    return Err(HostError::from_errno(e.raw_os_error(), "writing to the console"));
                }
            }
        }
        Ok(())
    }
}
