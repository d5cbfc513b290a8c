//! A guest's console on a descriptor, usually standard output.

use crate::confine::Rule;
use crate::sys::sleep_ms;
use crate::transfer::write;
use crate::wait::OnSignal;
use core::sync::atomic::{AtomicBool, Ordering};
use hypervisor::host::{Console, HostError, Notices};
use hypervisor::memory::GuestSlice;
use rustix::fd::{AsRawFd, BorrowedFd, RawFd};
use rustix::io::Errno;
use std::sync::Arc;

/// Writes to a descriptor that stays open.
pub struct FdConsole {
    fd: BorrowedFd<'static>,
    on_signal: Option<Arc<dyn OnSignal>>,
    /// Where it is told that nothing can be written, if that is not to end the guest.
    lost: Option<Arc<dyn Notices>>,
    told: AtomicBool,
}

impl FdConsole {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::over(rustix::stdio::stdout())
    }

    fn over(fd: BorrowedFd<'static>) -> Self {
        Self { fd, on_signal: None, lost: None, told: AtomicBool::new(false) }
    }

    /// The same, for a guest that goes on where nothing can be written any more: what it prints is
    /// dropped then, which is told to `log` once.
    #[must_use]
    pub fn dispensable(self, log: Arc<dyn Notices>) -> Self {
        Self { lost: Some(log), ..self }
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
    /// Waits as long as it takes. If a signal ends the guest meanwhile, the rest is dropped. Each
    /// write is tried: a full disk may have room again.
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
                    let error = HostError::from_errno(e.raw_os_error(), "writing to the console");
                    let Some(log) = &self.lost else { return Err(error) };
                    if !self.told.swap(true, Ordering::Relaxed) {
                        log.notice(format_args!("{error}; what the guest prints is dropped"));
                    }
                    return Ok(());
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
        FdConsole::over(fd)
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

    #[derive(Default)]
    struct Log(std::sync::Mutex<Vec<String>>);

    impl Notices for Log {
        fn notice(&self, text: std::fmt::Arguments<'_>) {
            self.0.lock().unwrap().push(text.to_string());
        }
    }

    #[test]
    fn a_reader_that_is_gone_can_be_done_without() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let log = Arc::<Log>::default();
        let console = console(writer).dispensable(Arc::<Log>::clone(&log));
        for _ in 0..3 {
            console.write(GuestSlice::from_host(&mut [1])).unwrap();
        }
        let told = "writing to the console: Broken pipe; what the guest prints is dropped";
        assert_eq!(*log.0.lock().unwrap(), [told]);
    }
}
