//! Error numbers in words, for the standard library's messages.

use core::ffi::{c_char, c_int};

/// strerror_r(3) as POSIX has it: number and text, cut to fit.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __xpg_strerror_r(number: c_int, to: *mut c_char, len: usize) -> c_int {
    let words = words(number);
    let Some(room) = len.checked_sub(1) else { return libc::ERANGE };
    let count = words.len().min(room);
    // SAFETY: the caller's buffer has `len` bytes.
    unsafe {
        crate::mem::memcpy(to.cast(), words.as_ptr(), count);
        to.add(count).write(0);
    }
    0
}

fn words(number: c_int) -> &'static str {
    match number {
        libc::EPERM => "Operation not permitted",
        libc::ENOENT => "No such file or directory",
        libc::EINTR => "Interrupted system call",
        libc::EIO => "Input/output error",
        libc::ENXIO => "No such device or address",
        libc::E2BIG => "Argument list too long",
        libc::ENOEXEC => "Exec format error",
        libc::EBADF => "Bad file descriptor",
        libc::EAGAIN => "Resource temporarily unavailable",
        libc::ENOMEM => "Cannot allocate memory",
        libc::EACCES => "Permission denied",
        libc::EFAULT => "Bad address",
        libc::EBUSY => "Device or resource busy",
        libc::EEXIST => "File exists",
        libc::ENODEV => "No such device",
        libc::ENOTDIR => "Not a directory",
        libc::EISDIR => "Is a directory",
        libc::EINVAL => "Invalid argument",
        libc::ENFILE => "Too many open files in system",
        libc::EMFILE => "Too many open files",
        libc::ENOTTY => "Inappropriate ioctl for device",
        libc::ETXTBSY => "Text file busy",
        libc::EFBIG => "File too large",
        libc::ENOSPC => "No space left on device",
        libc::ESPIPE => "Illegal seek",
        libc::EROFS => "Read-only file system",
        libc::EPIPE => "Broken pipe",
        libc::ENAMETOOLONG => "File name too long",
        libc::ENOSYS => "Function not implemented",
        libc::ELOOP => "Too many levels of symbolic links",
        libc::EOVERFLOW => "Value too large for defined data type",
        libc::EBADFD => "File descriptor in bad state",
        libc::ENOTSOCK => "Socket operation on non-socket",
        libc::EMSGSIZE => "Message too long",
        libc::EOPNOTSUPP => "Operation not supported",
        libc::EADDRINUSE => "Address already in use",
        libc::EADDRNOTAVAIL => "Cannot assign requested address",
        libc::ENETDOWN => "Network is down",
        libc::ENETUNREACH => "Network is unreachable",
        libc::ECONNRESET => "Connection reset by peer",
        libc::ENOBUFS => "No buffer space available",
        libc::ENOTCONN => "Transport endpoint is not connected",
        libc::ETIMEDOUT => "Connection timed out",
        libc::ECONNREFUSED => "Connection refused",
        libc::EDQUOT => "Disk quota exceeded",
        _ => "Unknown error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_c_librarys() {
        for number in 1..134 {
            let ours = words(number);
            // SAFETY: a string of the C library's.
            let theirs = unsafe { crate::mem::bytes(libc::strerror(number)) };
            assert!(ours == "Unknown error" || ours.as_bytes() == theirs, "{number}: {ours}");
        }
    }

    #[test]
    fn a_short_buffer_gets_a_whole_string() {
        let mut text = [1; 4];
        // SAFETY: a buffer of ours.
        unsafe { __xpg_strerror_r(libc::ENOENT, text.as_mut_ptr(), 4) };
        assert_eq!(
            text,
            c"No ".to_bytes_with_nul().iter().map(|&b| b.cast_signed()).collect::<Vec<_>>()[..]
        );
    }
}
