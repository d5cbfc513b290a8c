//! Standard input, output and error of a process that was started without them.
//!
//! What is opened next gets the lowest number that is free. A disk in the place of standard output
//! would be the guest's console. Rust's runtime sees to that before its `main`; [`fill`] is for
//! programs without one, before they open anything.

#![allow(unsafe_code)]

use rustix::fd::{BorrowedFd, IntoRawFd};
use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};
use rustix::io::Errno;

/// Puts /dev/null in the place of those that are closed.
pub fn fill() {
    for number in 0..3 {
        // SAFETY: only asked about; seeking by nothing is what the narrowest outer filters know.
        let asked = seek(unsafe { BorrowedFd::borrow_raw(number) }, SeekFrom::Current(0));
        // The lower ones are open, so this one is the lowest that is free.
        if asked == Err(Errno::BADF)
            && let Ok(null) = open("/dev/null", OFlags::RDWR, Mode::empty())
        {
            let _stays_open = null.into_raw_fd();
        }
    }
}
