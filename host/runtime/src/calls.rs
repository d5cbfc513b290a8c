//! System calls under the C library's names: the kernel's own arguments, -1 and `errno` for an
//! error. Functions that C declares with `...` take all their arguments here: on x86_64 the two
//! are called alike.

use crate::syscall::{errno, raw, set_errno};
use core::ffi::{c_char, c_int, c_long, c_void};

/// Made by `calls!`: what a C type is as a register's contents.
trait Register {
    fn register(self) -> usize;
}

macro_rules! registers {
    ($($kind:ty),*) => {$(
        impl Register for $kind {
            #[expect(clippy::allow_attributes, reason = "for some of the types only")]
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            fn register(self) -> usize {
                self as usize
            }
        }
    )*};
}

registers!(c_int, u32, usize, i64);

impl<T> Register for *const T {
    fn register(self) -> usize {
        self.expose_provenance()
    }
}

impl<T> Register for *mut T {
    fn register(self) -> usize {
        self.expose_provenance()
    }
}

fn six<const N: usize>(given: [usize; N]) -> [usize; 6] {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&given);
    all
}

macro_rules! calls {
    ($($name:ident = $number:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {$(
        #[doc = concat!(stringify!($number), ", see its manual page.")]
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
            // SAFETY: the arguments are the caller's, as the manual page has them.
            let result = unsafe { raw(libc::$number, six([$($argument.register()),*])) };
            #[expect(clippy::allow_attributes, reason = "for some of the types only")]
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            { errno(result) as $result }
        }
    )*};
}

calls! {
    read = SYS_read(fd: c_int, to: *mut c_void, len: usize) -> isize;
    write = SYS_write(fd: c_int, from: *const c_void, len: usize) -> isize;
    writev = SYS_writev(fd: c_int, parts: *const c_void, count: c_int) -> isize;
    open = SYS_open(path: *const c_char, flags: c_int, mode: u32) -> c_int;
    open64 = SYS_open(path: *const c_char, flags: c_int, mode: u32) -> c_int;
    close = SYS_close(fd: c_int) -> c_int;
    fcntl = SYS_fcntl(fd: c_int, command: c_int, argument: usize) -> c_int;
    ioctl = SYS_ioctl(fd: c_int, request: usize, argument: usize) -> c_int;
    lseek64 = SYS_lseek(fd: c_int, offset: i64, whence: c_int) -> i64;
    fstat64 = SYS_fstat(fd: c_int, to: *mut c_void) -> c_int;
    stat64 = SYS_stat(path: *const c_char, to: *mut c_void) -> c_int;
    statx = SYS_statx(fd: c_int, path: *const c_char, flags: c_int, mask: u32, to: *mut c_void)
        -> c_int;
    readlink = SYS_readlink(path: *const c_char, to: *mut c_char, len: usize) -> isize;
    dup2 = SYS_dup2(from: c_int, to: c_int) -> c_int;
    pipe2 = SYS_pipe2(to: *mut c_int, flags: c_int) -> c_int;
    poll = SYS_poll(fds: *mut c_void, count: usize, timeout: c_int) -> c_int;

    mmap = SYS_mmap(at: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64)
        -> usize;
    mmap64 = SYS_mmap(at: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int,
        offset: i64) -> usize;
    munmap = SYS_munmap(at: *mut c_void, len: usize) -> c_int;
    mincore = SYS_mincore(at: *mut c_void, len: usize, to: *mut u8) -> c_int;

    getpid = SYS_getpid() -> c_int;
    gettid = SYS_gettid() -> c_int;
    prctl = SYS_prctl(option: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int;
    waitid = SYS_waitid(kind: c_int, id: u32, to: *mut c_void, options: c_int) -> c_int;
    pause = SYS_pause() -> c_int;
    chdir = SYS_chdir(path: *const c_char) -> c_int;
    chroot = SYS_chroot(path: *const c_char) -> c_int;
    setsid = SYS_setsid() -> c_int;
    setpgid = SYS_setpgid(pid: c_int, group: c_int) -> c_int;
    setuid = SYS_setuid(id: u32) -> c_int;
    setgid = SYS_setgid(id: u32) -> c_int;
    setgroups = SYS_setgroups(count: usize, list: *const u32) -> c_int;

    socket = SYS_socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    socketpair = SYS_socketpair(family: c_int, kind: c_int, protocol: c_int, to: *mut c_int)
        -> c_int;
    bind = SYS_bind(fd: c_int, address: *const c_void, len: u32) -> c_int;
    listen = SYS_listen(fd: c_int, backlog: c_int) -> c_int;
    accept4 = SYS_accept4(fd: c_int, address: *mut c_void, len: *mut u32, flags: c_int) -> c_int;
    getsockname = SYS_getsockname(fd: c_int, address: *mut c_void, len: *mut u32) -> c_int;
    getpeername = SYS_getpeername(fd: c_int, address: *mut c_void, len: *mut u32) -> c_int;
    getsockopt = SYS_getsockopt(fd: c_int, level: c_int, name: c_int, to: *mut c_void,
        len: *mut u32) -> c_int;
    setsockopt = SYS_setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void,
        len: u32) -> c_int;
    shutdown = SYS_shutdown(fd: c_int, how: c_int) -> c_int;
    recvmsg = SYS_recvmsg(fd: c_int, message: *mut c_void, flags: c_int) -> isize;
    sendmsg = SYS_sendmsg(fd: c_int, message: *const c_void, flags: c_int) -> isize;
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn recv(fd: c_int, to: *mut c_void, len: usize, flags: c_int) -> isize {
    // SAFETY: the caller's.
    let args = [fd.register(), to.register(), len, flags.register(), 0, 0];
    // SAFETY: as recv(2) has it: recvfrom(2) without an address.
    errno(unsafe { raw(libc::SYS_recvfrom, args) })
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn send(fd: c_int, from: *const c_void, len: usize, flags: c_int) -> isize {
    let args = [fd.register(), from.register(), len, flags.register(), 0, 0];
    // SAFETY: as send(2) has it: sendto(2) without an address.
    errno(unsafe { raw(libc::SYS_sendto, args) })
}

/// syscall(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    // SAFETY: the caller's. Arguments that it has not passed are not looked at by the kernel.
    errno(unsafe { raw(number, [a, b, c, d, e, f]) }) as c_long
}

/// There is no working directory to tell: only a panic's backtrace asks.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn getcwd(_to: *mut c_char, _len: usize) -> *mut c_char {
    set_errno(libc::ENOSYS);
    core::ptr::null_mut()
}

/// As [`getcwd`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn realpath(_path: *const c_char, _to: *mut c_char) -> *mut c_char {
    set_errno(libc::ENOSYS);
    core::ptr::null_mut()
}

/// No objects: an unwinder finds nothing, and a backtrace ends at once.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn dl_iterate_phdr(_callback: *const c_void, _data: *mut c_void) -> c_int {
    0
}

/// As [`dl_iterate_phdr`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn _dl_find_object(_address: *const c_void, _to: *mut c_void) -> c_int {
    -1
}

/// A version in which the standard library does not rely on `posix_spawn`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn gnu_get_libc_version() -> *const c_char {
    c"2.17".as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_tell_their_errors_as_c_does() {
        let mut ends = [0; 2];
        // SAFETY: buffers of ours.
        unsafe {
            assert_eq!(pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
            assert_eq!(write(ends[1], c"word".as_ptr().cast(), 4), 4);
            let mut word = [0u8; 8];
            assert_eq!(read(ends[0], word.as_mut_ptr().cast(), 8), 4);
            assert_eq!(&word[..4], b"word");
            assert_eq!((close(ends[0]), close(ends[1])), (0, 0));
            assert_eq!(open(c"/no/such/file".as_ptr(), libc::O_RDONLY, 0), -1);
            assert_eq!(*crate::thread::errno_location(), libc::ENOENT);
            assert_eq!(i64::from(getpid()), syscall(libc::SYS_getpid, 0, 0, 0, 0, 0, 0));
        }
    }
}
