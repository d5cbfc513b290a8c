//! The misdeeds, by what they are against.

pub mod block;
pub mod calls;
pub mod cpu;
pub mod exceptions;
pub mod memory;
pub mod net;
pub mod ring;
pub mod state;

use unikernel::raw;

/// A table of misdeeds: `"name" => Expected, function;`.
macro_rules! misdeeds {
    ($($name:literal => $expected:ident, $run:expr;)*) => {
        /// All of this module.
        pub const ALL: &[$crate::Misdeed] = &[$($crate::Misdeed {
            name: $name,
            expected: $crate::Expected::$expected,
            run: $run,
        }),*];
    };
}
use misdeeds;

/// Size of the guest's memory in bytes: the first address beyond it.
fn end_of_memory() -> usize {
    raw::boot_info().mem_size
}

/// An address inside this program's text.
fn text() -> usize {
    (crate::run as *const ()).addr()
}

/// Four gibibytes, which no 32-bit length can say.
const FOUR_GIB: u64 = 1 << 32;

/// Error unless the answer was `solo5_result_t`'s EINVAL.
fn refused(ret: i32) -> crate::Outcome {
    if ret == 2 { Ok(()) } else { Err("the answer is not EINVAL") }
}
