//! Processes: their end, and other programs.

use crate::environment;
use crate::mem::{bytes, memcpy};
use crate::syscall::{errno, raw, set_errno};
use core::ffi::{c_char, c_int, c_long, c_uint, c_void};

/// Ends the process. There is nothing to do before: no `atexit`, no stdio.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn exit(status: c_int) -> ! {
    loop {
        let status = usize::try_from(status.cast_unsigned()).unwrap_or(0);
        // SAFETY: no memory is involved.
        unsafe { raw(libc::SYS_exit_group, [status, 0, 0, 0, 0, 0]) };
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn _exit(status: c_int) -> ! {
    exit(status)
}

/// SIGABRT, to oneself, however it is handled.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn abort() -> ! {
    // SAFETY: no memory is involved.
    unsafe {
        crate::signal::signal(libc::SIGABRT, libc::SIG_DFL);
        let pid = raw(libc::SYS_getpid, [0; 6]).cast_unsigned();
        let signal = libc::SIGABRT.unsigned_abs() as usize;
        raw(libc::SYS_kill, [pid, signal, 0, 0, 0, 0]);
    }
    exit(127)
}

/// fork(2), of the calling thread alone.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fork() -> c_int {
    let flags = libc::SIGCHLD.unsigned_abs() as usize;
    // SAFETY: the child has its own copy of everything.
    let result = unsafe { raw(libc::SYS_clone, [flags, 0, 0, 0, 0, 0]) };
    c_int::try_from(errno(result)).unwrap_or(-1)
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int {
    let [pid, options] = [pid as usize, options as usize];
    // SAFETY: the caller's.
    let result = unsafe { raw(libc::SYS_wait4, [pid, status.addr(), options, 0, 0, 0]) };
    c_int::try_from(errno(result)).unwrap_or(-1)
}

/// ptrace(2): what is peeked at is the result, and then only `errno` tells an error.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn ptrace(request: c_uint, pid: c_int, at: usize, data: usize) -> c_long {
    let peeks = (libc::PTRACE_PEEKTEXT..=libc::PTRACE_PEEKUSER).contains(&request);
    let mut word: c_long = 0;
    let data = if peeks { (&raw mut word).expose_provenance() } else { data };
    let pid = pid.cast_unsigned() as usize;
    // SAFETY: the caller's; the word is valid for the call.
    let result = unsafe { raw(libc::SYS_ptrace, [request as usize, pid, at, data, 0, 0]) };
    match errno(result) {
        0.. if peeks => word,
        other => other as c_long,
    }
}

/// Longest path that the kernel takes.
const PATH_MAX: usize = 4096;

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int {
    let execute = |path: *const c_char| {
        // SAFETY: the caller's strings, and the environment's.
        let result = unsafe {
            let list = environment::list().addr();
            raw(libc::SYS_execve, [path.addr(), argv.addr(), list, 0, 0, 0])
        };
        c_int::try_from(-result).unwrap_or(libc::ENOENT)
    };
    // SAFETY: the caller's string, and the environment's.
    let (name, path) = unsafe {
        let path = environment::getenv(c"PATH".as_ptr());
        (bytes(file), if path.is_null() { b"/bin:/usr/bin" } else { bytes(path) })
    };
    let error = if name.contains(&b'/') { execute(file) } else { search(name, path, execute) };
    set_errno(error);
    -1
}

/// Tries `name` in each directory of `path`; gives the error of the last try, or EACCES if there
/// was one.
fn search(name: &[u8], path: &[u8], execute: impl Fn(*const c_char) -> c_int) -> c_int {
    let mut found = libc::ENOENT;
    for directory in path.split(|&b| b == b':') {
        let mut full = [0u8; PATH_MAX];
        let directory = if directory.is_empty() { b"." } else { directory };
        if name.is_empty() || directory.len() + name.len() + 2 > PATH_MAX {
            continue;
        }
        // SAFETY: it fits, as was just checked, with a byte left for the end.
        unsafe {
            let at = full.as_mut_ptr();
            memcpy(at, directory.as_ptr(), directory.len());
            full[directory.len()] = b'/';
            memcpy(at.add(directory.len() + 1), name.as_ptr(), name.len());
        }
        match execute(full.as_ptr().cast()) {
            libc::EACCES => found = libc::EACCES,
            libc::ENOENT | libc::ENOTDIR => {}
            error => return error,
        }
    }
    found
}

macro_rules! no_posix_spawn {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {$(
        /// Not there: the standard library forks instead, because of the version that
        /// [`gnu_get_libc_version`](crate::calls::gnu_get_libc_version) tells.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub extern "C" fn $name($(_: $kind),*) -> c_int {
            libc::ENOSYS
        }
    )*};
}

no_posix_spawn! {
    posix_spawnp(pid: *mut c_int, file: *const c_char, actions: *const c_void,
        attributes: *const c_void, argv: *const *const c_char, environment: *const *const c_char);
    posix_spawnattr_init(attributes: *mut c_void);
    posix_spawnattr_destroy(attributes: *mut c_void);
    posix_spawnattr_setflags(attributes: *mut c_void, flags: i16);
    posix_spawnattr_setpgroup(attributes: *mut c_void, group: c_int);
    posix_spawnattr_setsigdefault(attributes: *mut c_void, set: *const c_void);
    posix_spawn_file_actions_init(actions: *mut c_void);
    posix_spawn_file_actions_destroy(actions: *mut c_void);
    posix_spawn_file_actions_adddup2(actions: *mut c_void, from: c_int, to: c_int);
    posix_spawn_file_actions_addchdir_np(actions: *mut c_void, path: *const c_char);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn programs_are_looked_for_in_the_order_of_the_path() {
        let tried = RefCell::new(Vec::new());
        let all = |error: c_int| {
            let tried = &tried;
            move |path: *const c_char| {
                // SAFETY: `search` passes a string.
                tried.borrow_mut().push(unsafe { bytes(path) }.to_vec());
                error
            }
        };
        assert_eq!(search(b"sh", b"/a::/b", all(libc::ENOENT)), libc::ENOENT);
        assert_eq!(tried.take(), [b"/a/sh".to_vec(), b"./sh".to_vec(), b"/b/sh".to_vec()]);
        assert_eq!(search(b"sh", b"/a:/b", all(libc::EACCES)), libc::EACCES);
        assert_eq!(tried.take().len(), 2);
        assert_eq!(search(b"sh", b"/a:/b", all(libc::ENOEXEC)), libc::ENOEXEC);
        assert_eq!(tried.take().len(), 1);
        let long = vec![b'x'; PATH_MAX];
        assert_eq!(search(&long, b"/a", all(libc::EACCES)), libc::ENOENT);
        assert!(tried.take().is_empty());
    }
}
