//! Words for the error numbers that a host's system calls return.
//!
//! The numbers are Linux's, which Redox shares for these. The words are those of POSIX manuals, so
//! that a person can look them up. A table and not the C library's: an error may be born where
//! there is no allocator and no thread-local storage.

/// What `errno` means, in a few words; `None` for a number that is not in the table.
pub const fn words(errno: i32) -> Option<&'static str> {
    Some(match errno {
        1 => "Operation not permitted",
        2 => "No such file or directory",
        4 => "Interrupted system call",
        5 => "Input/output error",
        6 => "No such device or address",
        9 => "Bad file descriptor",
        11 => "Resource temporarily unavailable",
        12 => "Cannot allocate memory",
        13 => "Permission denied",
        14 => "Bad address",
        16 => "Device or resource busy",
        17 => "File exists",
        19 => "No such device",
        20 => "Not a directory",
        21 => "Is a directory",
        22 => "Invalid argument",
        23 => "Too many open files in system",
        24 => "Too many open files",
        25 => "Inappropriate ioctl for device",
        26 => "Text file busy",
        27 => "File too large",
        28 => "No space left on device",
        29 => "Illegal seek",
        30 => "Read-only file system",
        32 => "Broken pipe",
        38 => "Function not implemented",
        61 => "No data available",
        71 => "Protocol error",
        75 => "Value too large for defined data type",
        77 => "File descriptor in bad state",
        88 => "Socket operation on non-socket",
        90 => "Message too long",
        95 => "Operation not supported",
        98 => "Address already in use",
        99 => "Cannot assign requested address",
        100 => "Network is down",
        101 => "Network is unreachable",
        104 => "Connection reset by peer",
        105 => "No buffer space available",
        107 => "Transport endpoint is not connected",
        110 => "Connection timed out",
        111 => "Connection refused",
        122 => "Disk quota exceeded",
        _ => return None,
    })
}
