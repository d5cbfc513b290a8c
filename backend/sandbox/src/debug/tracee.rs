//! ptrace(2) of a guest's process, and the wait for what it does.
//!
//! All calls come from the thread that has made the [`Tracee`]: the kernel knows tracers by
//! thread. The process is held in a stop except between [`Tracee::go`] and the next
//! [`Event`] of [`Tracee::wait`] that is one.

#![allow(unsafe_code)]

use core::mem::{MaybeUninit, offset_of};
use host_linux::signals;
use libc::{c_int, c_void, user_fpregs_struct, user_regs_struct};
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::Pid;

/// What a traced process has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It is about to get this signal.
    Signal(c_int),
    /// It stopped because [`Tracee::interrupt`] was called.
    Interrupted,
    /// It enters or leaves a system call ([`Go::Syscall`]).
    Syscall,
    /// A stopping signal has stopped it.
    Group,
    /// It has ended. It is still to be waited for.
    Gone,
    /// It has done nothing, but a signal handler has run here.
    Nudged,
}

/// How a stopped process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// Until something happens.
    On,
    /// For one instruction.
    Step,
    /// To the next entry into or exit from a system call.
    Syscall,
    /// It stays stopped, as its stopping signal wants, until something else happens.
    Listen,
}

/// Linux `include/uapi/linux/ptrace.h`.
const PTRACE_GETSIGMASK: u32 = 0x420a;
const PTRACE_EVENT_STOP: c_int = 128;

/// A process that this thread traces.
pub struct Tracee {
    pid: Pid,
    /// Readable when the process has ended.
    process: OwnedFd,
    children: ChildSignals,
}

impl Tracee {
    /// Starts to trace a child, which goes on running. It dies if this process does.
    ///
    /// # Errors
    /// The system's.
    pub fn seize(pid: Pid, process: OwnedFd) -> Result<Self, Errno> {
        let children = ChildSignals::new()?;
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        let tracee = Self { pid, process, children };
        tracee.request(libc::PTRACE_SEIZE, 0, usize::try_from(options).unwrap_or(0))?;
        Ok(tracee)
    }

    fn request(&self, request: libc::c_uint, address: usize, data: usize) -> Result<(), Errno> {
        let pid = self.pid.as_raw_nonzero().get();
        let (address, data) = (address as *mut c_void, data as *mut c_void);
        // SAFETY: what the request reads or writes here is valid: the callers pass numbers or the
        // address of a structure of the request's type.
        match unsafe { libc::ptrace(request, pid, address, data) } {
            -1 => Err(last_error()),
            _ => Ok(()),
        }
    }

    /// Lets it go on; `signal`, if not 0, is the one it was about to get.
    ///
    /// # Errors
    /// [`Errno::SRCH`] if it has ended.
    pub fn go(&self, how: Go, signal: c_int) -> Result<(), Errno> {
        let request = match how {
            Go::On => libc::PTRACE_CONT,
            Go::Step => libc::PTRACE_SINGLESTEP,
            Go::Syscall => libc::PTRACE_SYSCALL,
            Go::Listen => libc::PTRACE_LISTEN,
        };
        self.request(request, 0, usize::try_from(signal).unwrap_or(0))
    }

    /// Asks it to stop; [`Event::Interrupted`] follows, maybe after others.
    ///
    /// # Errors
    /// [`Errno::SRCH`] if it has ended.
    pub fn interrupt(&self) -> Result<(), Errno> {
        self.request(libc::PTRACE_INTERRUPT, 0, 0)
    }

    /// Lets it go for good, with this signal if it is not 0. It must be stopped.
    ///
    /// # Errors
    /// [`Errno::SRCH`] if it has ended.
    pub fn detach(self, signal: c_int) -> Result<(), Errno> {
        self.request(libc::PTRACE_DETACH, 0, usize::try_from(signal).unwrap_or(0))
    }

    /// Its general registers.
    ///
    /// # Errors
    /// [`Errno::SRCH`] if it is not stopped.
    pub fn registers(&self) -> Result<user_regs_struct, Errno> {
        let mut regs = MaybeUninit::uninit();
        self.request(libc::PTRACE_GETREGS, 0, regs.as_mut_ptr() as usize)?;
        // SAFETY: the kernel has filled it in.
        Ok(unsafe { regs.assume_init() })
    }

    /// Sets its general registers.
    ///
    /// # Errors
    /// [`Errno::IO`] if a process may not have such registers.
    pub fn set_registers(&self, regs: &user_regs_struct) -> Result<(), Errno> {
        self.request(libc::PTRACE_SETREGS, 0, core::ptr::from_ref(regs) as usize)
    }

    /// Its x87 and SSE registers.
    ///
    /// # Errors
    /// [`Errno::SRCH`] if it is not stopped.
    pub fn vectors(&self) -> Result<user_fpregs_struct, Errno> {
        let mut regs = MaybeUninit::uninit();
        self.request(libc::PTRACE_GETFPREGS, 0, regs.as_mut_ptr() as usize)?;
        // SAFETY: the kernel has filled it in.
        Ok(unsafe { regs.assume_init() })
    }

    /// Sets its x87 and SSE registers.
    ///
    /// # Errors
    /// [`Errno::INVAL`] if reserved bits are set.
    pub fn set_vectors(&self, regs: &user_fpregs_struct) -> Result<(), Errno> {
        self.request(libc::PTRACE_SETFPREGS, 0, core::ptr::from_ref(regs) as usize)
    }

    /// Whether it has this signal blocked.
    ///
    /// # Errors
    /// [`Errno::SRCH`] if it is not stopped.
    pub fn blocks(&self, signal: c_int) -> Result<bool, Errno> {
        let mut mask = 0u64;
        self.request(PTRACE_GETSIGMASK, size_of::<u64>(), &raw mut mask as usize)?;
        Ok(mask >> (signal - 1) & 1 == 1)
    }

    /// `si_code` of the signal that it is about to get.
    ///
    /// # Errors
    /// [`Errno::INVAL`] if there is none.
    pub fn signal_code(&self) -> Result<c_int, Errno> {
        let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
        self.request(libc::PTRACE_GETSIGINFO, 0, info.as_mut_ptr() as usize)?;
        // SAFETY: the kernel has filled it in.
        Ok(unsafe { info.assume_init() }.si_code)
    }

    /// The 8 bytes at an address of its address space, whatever they mean there.
    ///
    /// # Errors
    /// [`Errno::IO`] if it has nothing there.
    pub fn word(&self, address: usize) -> Result<u64, Errno> {
        self.peek(libc::PTRACE_PEEKDATA, address)
    }

    /// A debug register.
    ///
    /// # Errors
    /// The system's.
    pub fn debug_register(&self, number: usize) -> Result<u64, Errno> {
        self.peek(libc::PTRACE_PEEKUSER, debug_register(number))
    }

    /// Sets a debug register.
    ///
    /// # Errors
    /// The system's, if it has not got what the value asks for.
    pub fn set_debug_register(&self, number: usize, value: u64) -> Result<(), Errno> {
        let value = usize::try_from(value).map_err(|_| Errno::INVAL)?;
        self.request(libc::PTRACE_POKEUSER, debug_register(number), value)
    }

    fn peek(&self, request: libc::c_uint, address: usize) -> Result<u64, Errno> {
        let pid = self.pid.as_raw_nonzero().get();
        // SAFETY: errno is this thread's; the C library's peek returns the word, and tells an
        // error only by errno.
        let (word, errno) = unsafe {
            *libc::__errno_location() = 0;
            let word = libc::ptrace(request, pid, address, 0usize);
            (word, *libc::__errno_location())
        };
        if errno == 0 { Ok(word.cast_unsigned()) } else { Err(Errno::from_raw_os_error(errno)) }
    }

    /// Waits for the next event, with no signal blocked: one that is pending is
    /// [`Event::Nudged`] at once.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self) -> Result<Event, Errno> {
        loop {
            // Before the look, so that a stop after the look makes it readable again.
            self.children.drain();
            match self.look() {
                Ok(None) => {}
                Ok(Some(event)) => return Ok(event),
                // What has ended is none that could stop.
                Err(Errno::CHILD) => return Ok(Event::Gone),
                Err(e) => return Err(e),
            }
            match self.children.poll(&self.process) {
                Err(Errno::INTR) => return Ok(Event::Nudged),
                Err(e) => return Err(e),
                Ok(true) => return Ok(Event::Gone),
                // One that came before the wait, where an outer filter lets none be blocked.
                Ok(false) if signals::pending() => return Ok(Event::Nudged),
                Ok(false) => {}
            }
        }
    }

    /// The stop that it is in, if nobody has seen it yet.
    fn look(&self) -> Result<Option<Event>, Errno> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let pid = self.pid.as_raw_nonzero().get().cast_unsigned();
        let options = libc::WSTOPPED | libc::WNOHANG;
        // SAFETY: the structure is the kernel's to fill in.
        if unsafe { libc::waitid(libc::P_PID, pid, info.as_mut_ptr(), options) } != 0 {
            return Err(last_error());
        }
        // SAFETY: zeroed, and filled in where there was a stop; a child's fields are in it then.
        let (child, status) = unsafe {
            let info = info.assume_init();
            (info.si_pid(), info.si_status())
        };
        Ok((child != 0).then(|| event(status)))
    }
}

/// What a stop's status means (ptrace(2), "Stopped states").
fn event(status: c_int) -> Event {
    match (status >> 8, status & 0xff) {
        (PTRACE_EVENT_STOP, libc::SIGTRAP) => Event::Interrupted,
        (PTRACE_EVENT_STOP, _) => Event::Group,
        (_, signal) if signal == libc::SIGTRAP | 0x80 => Event::Syscall,
        (_, signal) => Event::Signal(signal),
    }
}

/// Where `struct user` has a debug register.
fn debug_register(number: usize) -> usize {
    offset_of!(libc::user, u_debugreg) + number * size_of::<u64>()
}

/// SIGCHLD of this thread as a descriptor: stops of a child are told by that signal only. It
/// stays blocked as long as this lives.
struct ChildSignals {
    signals: OwnedFd,
    before: libc::sigset_t,
}

/// How long a wait goes on without another look, in milliseconds: in a program whose other
/// threads leave SIGCHLD open, the kernel may give it to one of them.
const LOOK_AGAIN_MS: i64 = 50;

impl ChildSignals {
    fn new() -> Result<Self, Errno> {
        // SAFETY: the sets are initialised before they are used.
        let (before, signals) = unsafe {
            let mut set = core::mem::zeroed();
            let mut before = core::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
            (before, libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))
        };
        if signals < 0 {
            return Err(last_error());
        }
        // SAFETY: it was opened just now, and nobody else knows it.
        Ok(Self { signals: unsafe { OwnedFd::from_raw_fd(signals) }, before })
    }

    fn drain(&self) {
        let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
        let _ = rustix::io::read(&self.signals, &mut bytes);
    }

    /// Waits for SIGCHLD or the end of `process`, whether that has come, or another signal.
    fn poll(&self, process: &OwnedFd) -> Result<bool, Errno> {
        let entry = |fd: c_int| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [entry(process.as_raw_fd()), entry(self.signals.as_raw_fd())];
        let timeout = libc::timespec { tv_sec: 0, tv_nsec: LOOK_AGAIN_MS * 1_000_000 };
        let blocked = 1u64 << (libc::SIGCHLD - 1);
        // SAFETY: all three are valid for the call; the mask is the kernel's 8 bytes.
        let result = unsafe {
            libc::syscall(
                libc::SYS_ppoll,
                fds.as_mut_ptr(),
                fds.len(),
                &raw const timeout,
                &raw const blocked,
                size_of::<u64>(),
            )
        };
        if result < 0 { Err(last_error()) } else { Ok(fds[0].revents != 0) }
    }
}

impl Drop for ChildSignals {
    fn drop(&mut self) {
        self.drain();
        // SAFETY: the set is the one that `new` has got from the system.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, core::ptr::null_mut())
        };
    }
}

fn last_error() -> Errno {
    // SAFETY: errno is this thread's.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// The same descriptor for another owner.
///
/// # Errors
/// The system's.
pub fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_told_apart() {
        assert_eq!(event(libc::SIGSEGV), Event::Signal(libc::SIGSEGV));
        assert_eq!(event(libc::SIGTRAP), Event::Signal(libc::SIGTRAP));
        assert_eq!(event(libc::SIGTRAP | 0x80), Event::Syscall);
        assert_eq!(event(128 << 8 | libc::SIGTRAP), Event::Interrupted);
        assert_eq!(event(128 << 8 | libc::SIGSTOP), Event::Group);
    }
}
