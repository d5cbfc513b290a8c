//! Messages of the image itself, with levels, on the serial port.

use crate::serial::Serial;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering};
pub use host_baremetal::options::Level;
use hypervisor::sync::Mutex;

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static LOCK: Mutex<()> = Mutex::new(());

/// Shows messages up to this level from now on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Writes one line, whole.
pub fn line(level: Level, text: fmt::Arguments<'_>) {
    if level as u8 > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let prefix = match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info | Level::Debug => "",
    };
    let _lock = LOCK.lock();
    let _ = writeln!(Serial, "{prefix}{text}");
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
