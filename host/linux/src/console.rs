//! A guest's console on a descriptor, usually standard output.

use crate::confine::Rule;
use crate::sys::sleep_ms;
use crate::transfer::write;
use crate::wait::OnSignal;
use hypervisor::host::{Console, HostError};
use hypervisor::memory::GuestSlice;
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::Errno;
use std::sync::Arc;

/// Writes to a descriptor that stays open.
pub struct FdConsole {
    fd: BorrowedFd<'static>,
    on_signal: Option<Arc<dyn OnSignal>>,
}

impl FdConsole {
    /// Standard output.
    pub fn stdout() -> Self {
        Self { fd: rustix::stdio::stdout(), on_signal: None }
    }

    /// The same, asking `on_signal` whenever a signal interrupts a write that has to wait.
    #[must_use]
    pub fn interruptible(self, on_signal: Arc<dyn OnSignal>) -> Self {
        Self { on_signal: Some(on_signal), ..self }
    }

    /// Its descriptor.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// The system calls that serving it takes.
    pub fn rules(&self) -> Vec<Rule> {
        vec![
            Rule::on_fd(libc::SYS_write, self.fd(), "console output"),
            Rule::any(libc::SYS_nanosleep, "wait for a console that takes no more at the moment"),
        ]
    }

    fn ends(&self) -> bool {
        self.on_signal.as_ref().is_some_and(|ask| crate::signals::pending() && ask.ends_wait())
    }
}

impl Console for FdConsole {
    /// Waits as long as it takes. If a signal ends the guest meanwhile, the rest is dropped.
    fn write(&self, text: GuestSlice<'_>) -> Result<(), HostError> {
        let mut done = 0;
        while let Some(rest) = text.part(done, text.len() - done).filter(|rest| !rest.is_empty()) {
            match write(self.fd, rest) {
                Ok(count) => done += count,
                Err(Errno::INTR) if self.ends() => return Ok(()),
                Err(Errno::AGAIN) if self.ends() => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => sleep_ms(1),
                Err(e) => {
                    return Err(HostError::from_errno(e.raw_os_error(), "writing to the console"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::OwnedFd;
    use rustix::io::ioctl_fionbio;
    use rustix::pipe::pipe;

    fn console(fd: OwnedFd) -> FdConsole {
        // SAFETY: leaked, so it stays open.
        #[allow(unsafe_code)]
        let fd = unsafe { BorrowedFd::borrow_raw(std::mem::ManuallyDrop::new(fd).as_raw_fd()) };
        FdConsole { fd, on_signal: None }
    }

    #[test]
    fn a_slow_reader_still_gets_everything() {
        let (reader, writer) = pipe().unwrap();
        ioctl_fionbio(&writer, true).unwrap();
        let drain = std::thread::spawn(move || {
            let mut chunk = [0; 1000];
            let mut sum = 0usize;
            while sum < 300_000 {
                sum += rustix::io::read(&reader, &mut chunk).unwrap();
            }
            sum
        });
        let mut text = vec![b'x'; 300_000];
        console(writer).write(GuestSlice::from_host(&mut text)).unwrap();
        assert_eq!(drain.join().unwrap(), 300_000);
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error() {
        // Rust's runtime ignores SIGPIPE, as our programs do.
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let error = console(writer).write(GuestSlice::from_host(&mut [1])).unwrap_err();
        assert_eq!(error.to_string(), "writing to the console: Broken pipe");
    }
}
