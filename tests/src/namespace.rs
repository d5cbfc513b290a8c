//! Namespaces of a test's own, so that mounts and interfaces trouble nobody else.
//!
//! A namespace belongs to a thread here: the closure runs in a new one, and the processes that it
//! starts are in the same namespace. It goes with its last user. Needs root.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::ptr;
use std::thread;

/// Runs `work` where mounts are its own.
///
/// # Errors
/// If there can be no such namespace.
///
/// # Panics
/// As `work`.
pub fn with_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    within(libc::CLONE_NEWNS, || {
        mount("none", Path::new("/"), libc::MS_REC | libc::MS_PRIVATE, "")?;
        Ok(work())
    })
}

/// Runs `work` where there is no network interface but the loopback one, which is down.
///
/// # Errors
/// If there can be no such namespace.
///
/// # Panics
/// As `work`.
pub fn with_network<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    within(libc::CLONE_NEWNET, || Ok(work()))
}

/// Mounts a file system in memory of at most `bytes`.
///
/// # Errors
/// The system's.
pub fn mount_tmpfs(at: &Path, bytes: u64) -> io::Result<()> {
    mount("tmpfs", at, 0, &format!("size={bytes}"))
}

/// Makes a mounted file system read-only.
///
/// # Errors
/// The system's.
pub fn remount_read_only(at: &Path) -> io::Result<()> {
    mount("tmpfs", at, libc::MS_REMOUNT | libc::MS_RDONLY, "")
}

fn within<T: Send>(flags: i32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let inside = || {
        // SAFETY: it changes this thread alone, which has nothing open that it relies on.
        match unsafe { libc::unshare(flags) } {
            0 => work(),
            _ => Err(io::Error::last_os_error()),
        }
    };
    thread::scope(|scope| scope.spawn(inside).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

fn mount(kind: &str, at: &Path, flags: u64, data: &str) -> io::Result<()> {
    let kind = CString::new(kind)?;
    let at = CString::new(at.as_os_str().as_bytes())?;
    let data = CString::new(data)?;
    let data = if data.is_empty() { ptr::null() } else { data.as_ptr().cast() };
    // SAFETY: all are C strings that live during the call, or null where that is allowed.
    match unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), flags, data) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
