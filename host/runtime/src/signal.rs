//! Signals.

use crate::syscall::{errno, raw};
use core::arch::global_asm;
use core::ffi::c_int;
use libc::{sigaction as Action, sigset_t};

/// `struct sigaction` as the kernel has it on x86_64.
#[repr(C)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

const SA_RESTORER: u64 = 0x0400_0000;
/// Bytes of the kernel's set of signals.
const SET: usize = 8;

global_asm!(
    ".globl redox_runtime_restorer",
    ".hidden redox_runtime_restorer",
    "redox_runtime_restorer:",
    "mov eax, {rt_sigreturn}",
    "syscall",
    "ud2",
    rt_sigreturn = const libc::SYS_rt_sigreturn,
);

unsafe extern "C" {
    fn redox_runtime_restorer();
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    let mut was = KernelAction { handler: 0, flags: 0, restorer: 0, mask: 0 };
    // SAFETY: the caller's structures; the set's first word is the kernel's set.
    unsafe {
        let action = new.as_ref().map(|new| KernelAction {
            handler: new.sa_sigaction,
            flags: u64::from(new.sa_flags.cast_unsigned()) | SA_RESTORER,
            restorer: redox_runtime_restorer as *const () as usize,
            mask: (&raw const new.sa_mask).cast::<u64>().read(),
        });
        let pointer = action.as_ref().map_or(0, |action| core::ptr::from_ref(action).addr());
        let number = usize::try_from(signal).unwrap_or(0);
        let was_pointer = (&raw mut was).addr();
        let result = raw(libc::SYS_rt_sigaction, [number, pointer, was_pointer, SET, 0, 0]);
        if errno(result) != 0 {
            return -1;
        }
        if let Some(old) = old.as_mut() {
            old.sa_sigaction = was.handler;
            let flags = was.flags & !SA_RESTORER;
            old.sa_flags = u32::try_from(flags).unwrap_or(0).cast_signed();
            sigemptyset(&raw mut old.sa_mask);
            (&raw mut old.sa_mask).cast::<u64>().write(was.mask);
        }
    }
    0
}

/// signal(2) with BSD's meaning, as the C library has it.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn signal(number: c_int, handler: usize) -> usize {
    // SAFETY: zero is a value of both structures.
    unsafe {
        let mut new: Action = core::mem::zeroed();
        let mut old: Action = core::mem::zeroed();
        new.sa_sigaction = handler;
        new.sa_flags = libc::SA_RESTART;
        match sigaction(number, &raw const new, &raw mut old) {
            0 => old.sa_sigaction,
            _ => libc::SIG_ERR,
        }
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigprocmask(
    how: c_int,
    new: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    let how = usize::try_from(how).unwrap_or(usize::MAX);
    // SAFETY: the caller's sets, whose first words are the kernel's.
    unsafe {
        let result = raw(libc::SYS_rt_sigprocmask, [how, new.addr(), old.addr(), SET, 0, 0]);
        if errno(result) == 0 { 0 } else { -1 }
    }
}

/// As [`sigprocmask`], but it gives the error's number.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn pthread_sigmask(
    how: c_int,
    new: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    // SAFETY: the caller's sets, and this thread's `errno`.
    unsafe {
        match sigprocmask(how, new, old) {
            0 => 0,
            _ => *crate::thread::errno_location(),
        }
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn signalfd(fd: c_int, set: *const sigset_t, flags: c_int) -> c_int {
    let [fd, flags] = [fd, flags].map(|n| n.cast_unsigned() as usize);
    // SAFETY: the caller's set, whose first word is the kernel's.
    let result = unsafe { raw(libc::SYS_signalfd4, [fd, set.addr(), SET, flags, 0, 0]) };
    c_int::try_from(errno(result)).unwrap_or(-1)
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigemptyset(set: *mut sigset_t) -> c_int {
    // SAFETY: the caller's set.
    unsafe { set.write(core::mem::zeroed()) };
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigfillset(set: *mut sigset_t) -> c_int {
    // SAFETY: the caller's set; all bits are a value.
    unsafe { crate::mem::memset(set.cast(), 0xff, size_of::<sigset_t>()) };
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigaddset(set: *mut sigset_t, signal: c_int) -> c_int {
    let Some(bit) = signal.checked_sub(1).filter(|bit| (0..64).contains(bit)) else {
        crate::syscall::set_errno(libc::EINVAL);
        return -1;
    };
    // SAFETY: the caller's set, whose first word is the kernel's.
    unsafe { *set.cast::<u64>() |= 1 << bit };
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicI32, Ordering};

    static SEEN: AtomicI32 = AtomicI32::new(0);

    extern "C" fn note(signal: c_int) {
        SEEN.store(signal, Ordering::Relaxed);
    }

    #[test]
    fn a_handler_is_called_and_told_about() {
        // SAFETY: the handler only touches an atomic.
        unsafe {
            assert_eq!(signal(libc::SIGUSR2, note as *const () as usize), libc::SIG_DFL);
            libc::raise(libc::SIGUSR2);
            assert_eq!(SEEN.load(Ordering::Relaxed), libc::SIGUSR2);
            let mut old: Action = core::mem::zeroed();
            assert_eq!(sigaction(libc::SIGUSR2, core::ptr::null(), &raw mut old), 0);
            assert_eq!(old.sa_sigaction, note as *const () as usize);
            assert_eq!(old.sa_flags, libc::SA_RESTART);
            assert_eq!(sigaction(libc::SIGKILL, &raw const old, core::ptr::null_mut()), -1);
        }
    }

    #[test]
    fn sets_are_the_kernels() {
        // SAFETY: sets of ours.
        unsafe {
            let mut set: sigset_t = core::mem::zeroed();
            sigfillset(&raw mut set);
            sigemptyset(&raw mut set);
            assert_eq!(sigaddset(&raw mut set, libc::SIGTERM), 0);
            assert_eq!(libc::sigismember(&raw const set, libc::SIGTERM), 1);
            assert_eq!(libc::sigismember(&raw const set, libc::SIGINT), 0);
            assert_eq!(sigaddset(&raw mut set, 0), -1);
        }
    }
}
