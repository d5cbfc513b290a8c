//! Messages of the image itself, with levels, on the serial port.

use crate::terminal;
use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
pub use host_baremetal::options::Level;

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Shows messages up to this level from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether messages of this level are shown.
pub fn shows(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes one line, whole.
pub fn line(level: Level, text: fmt::Arguments<'_>) {
    if !shows(level) {
        return;
    }
    match level {
        Level::Error => terminal::line(format_args!("error: {text}")),
        Level::Warn => terminal::line(format_args!("warning: {text}")),
        Level::Info | Level::Debug => terminal::line(text),
    }
}

/// Writes one line that was asked for.
pub fn line_plain(text: fmt::Arguments<'_>) {
    terminal::line(text);
}

macro_rules! warning {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Warn, format_args!($($text)*)) };
}
macro_rules! debug {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Debug, format_args!($($text)*)) };
}
macro_rules! info {
    ($($text:tt)*) => { $crate::log::line($crate::log::Level::Info, format_args!($($text)*)) };
}
pub(crate) use {debug, info, warning};
