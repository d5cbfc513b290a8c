//! The console: hypercall 2 of Solo5's hvt ABI. Output only.

#![allow(unsafe_code)]

use crate::raw::{self, Puts, number};
use core::fmt;

/// Writes bytes, whatever they are.
pub fn write(bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let data = bytes.as_ptr().expose_provenance() as u64;
    let mut puts = Puts { data, len: bytes.len() as u64 };
    // SAFETY: the argument names our bytes; the host only reads them.
    unsafe { raw::hypercall::<{ number::PUTS }, _>(&raw mut puts) };
}

/// Collects what is written and hands it on in pieces of [`Line::SIZE`], the rest when dropped: one
/// hypercall for an ordinary line.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; Self::SIZE],
    used: usize,
}

impl Line {
    /// Bytes that it holds back.
    pub const SIZE: usize = 512;

    /// An empty one.
    pub const fn new() -> Self {
        Self { bytes: [0; Self::SIZE], used: 0 }
    }

    /// Hands on what it holds.
    pub fn flush(&mut self) {
        write(&self.bytes[..self.used]);
        self.used = 0;
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.used == Self::SIZE {
                self.flush();
            }
            let (now, later) = rest.split_at(rest.len().min(Self::SIZE - self.used));
            self.bytes[self.used..self.used + now.len()].copy_from_slice(now);
            self.used += now.len();
            rest = later;
        }
        Ok(())
    }
}

#[doc(hidden)]
pub fn print(arguments: fmt::Arguments<'_>) {
    let mut line = Line::new();
    // The console itself cannot fail; a Display that does has printed what it could.
    let _ = fmt::Write::write_fmt(&mut line, arguments);
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::print(::core::format_args!($($arg)*)) };
}

/// Prints to the console, with a line feed.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => {
        $crate::console::print(::core::format_args!("{}\n", ::core::format_args!($($arg)*)))
    };
}
