//! The command line: what stood after the unikernel's file name, joined by spaces.

#![allow(unsafe_code)]

use crate::raw;
use core::ffi::CStr;

/// The command line as the tender wrote it, at most 8,191 bytes.
pub fn command_line() -> &'static [u8] {
    let text = core::ptr::with_exposed_provenance(raw::boot_info().cmdline);
    // SAFETY: the tender wrote a terminated string there and leaves it alone.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}

/// The command line's words, split at white space.
///
/// # Panics
///
/// If the command line is not UTF-8; [`command_line`] has its bytes.
pub fn args() -> core::str::SplitAsciiWhitespace<'static> {
    core::str::from_utf8(command_line())
        .expect("the command line is not UTF-8")
        .split_ascii_whitespace()
}

/// The value of the first word `NAME=VALUE`, without the `NAME=`.
pub fn option(name: &str) -> Option<&'static str> {
    args().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}
