//! The misdeeds, by what they are against.

pub mod block;
pub mod calls;
pub mod cpu;
pub mod entrances;
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

/// The first address beyond the guest's memory. A network ring lies above what the boot information
/// calls memory, in 2 MiB of its own that a tender may take for memory too.
fn end_of_memory() -> usize {
    let info = raw::boot_info();
    let has_ring = info.host_features & raw::FEATURE_RING_IO != 0;
    info.mem_size + if has_ring { 2 << 20 } else { 0 }
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
