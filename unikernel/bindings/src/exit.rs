//! The end: hypercall 8 of Solo5's hvt ABI, and what `main` may return.

#![allow(unsafe_code)]

use crate::raw::{self, Halt, number};
use core::fmt;

/// Status of a unikernel that aborted: panic, exception, [`abort`].
pub(crate) const STATUS_ABORT: i32 = 255;

/// Ends the unikernel with this status, 0 to 255.
pub fn exit(status: i32) -> ! {
    halt(status, 0)
}

/// Ends the unikernel with status 255 and a line with this message.
pub fn abort(message: impl fmt::Display) -> ! {
    crate::println!("unikernel: ABORT: {message}");
    halt(STATUS_ABORT, 0)
}

/// Halts; `cookie` is 0 or the address of 512 readable bytes.
pub(crate) fn halt(exit_status: i32, cookie: u64) -> ! {
    let mut halt = Halt { cookie, exit_status };
    loop {
        // SAFETY: the argument is what this hypercall reads; it does not come back.
        unsafe { raw::hypercall::<{ number::HALT }, _>(&raw mut halt) };
    }
}

/// What `main` may return.
pub trait Outcome {
    /// The exit status, after telling a person what they must know.
    fn status(self) -> i32;
}

impl Outcome for () {
    fn status(self) -> i32 {
        0
    }
}

impl Outcome for i32 {
    fn status(self) -> i32 {
        self
    }
}

impl Outcome for core::convert::Infallible {
    fn status(self) -> i32 {
        match self {}
    }
}

/// An error is printed and is status 1.
impl<T: Outcome, E: fmt::Display> Outcome for Result<T, E> {
    fn status(self) -> i32 {
        match self {
            Ok(value) => value.status(),
            Err(error) => {
                crate::println!("error: {error}");
                1
            }
        }
    }
}

/// Names the function that runs: `fn() -> impl Outcome`.
#[macro_export]
macro_rules! main {
    ($entry:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "Rust" fn __unikernel_main() -> i32 {
                $crate::Outcome::status($entry())
            }
        };
    };
}

#[cfg(not(test))]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    abort(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        assert_eq!(().status(), 0);
        assert_eq!(7.status(), 7);
        assert_eq!(Ok::<_, &str>(3).status(), 3);
    }
}
