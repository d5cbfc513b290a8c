//! The devices of a PC that are not interrupt controllers.
//!
//! Each is a [`crate::device::Device`] behind its lock, whatever a guest writes to it. Time comes
//! from the board's clock at each access; a device whose time acts on the guest is a
//! [`super::board::Timed`] too.

mod debug;
mod keyboard;
mod pit;
mod pm;
mod reset;
mod rtc;
mod uart;

pub use debug::{DebugExit, DebugPort};
pub use keyboard::{Keyboard, KeyboardCommand};
pub use pit::{Pit, SystemControl};
pub use pm::{Pm, PowerButton};
pub use reset::Port92;
pub use rtc::Rtc;
pub use uart::{Flush, SerialInput, Uart, UartLink};

use crate::device::Access;

/// Reads byte by byte, upwards from the access's offset.
pub(super) fn read_bytes(access: Access, mut byte: impl FnMut(u8) -> u8) -> u64 {
    let start = access.offset.to_le_bytes()[0];
    let mut bytes = [0; 8];
    for (index, slot) in (0u8..).zip(&mut bytes).take(access.width as usize) {
        *slot = byte(start.wrapping_add(index));
    }
    u64::from_le_bytes(bytes)
}

/// Writes byte by byte, upwards from the access's offset.
pub(super) fn write_bytes(access: Access, value: u64, mut byte: impl FnMut(u8, u8)) {
    let start = access.offset.to_le_bytes()[0];
    for (index, value) in (0u8..).zip(value.to_le_bytes()).take(access.width as usize) {
        byte(start.wrapping_add(index), value);
    }
}

/// Ticks of a clock of this frequency in so many nanoseconds.
pub(super) fn ticks(ns: u64, frequency: u64) -> u64 {
    let product = u128::from(ns) * u128::from(frequency);
    u64::try_from(product / 1_000_000_000).unwrap_or(u64::MAX)
}

/// The first nanosecond at which a clock of this frequency has made so many ticks.
pub(super) fn nanoseconds(ticks: u64, frequency: u64) -> u64 {
    let product = u128::from(ticks) * 1_000_000_000;
    u64::try_from(product.div_ceil(u128::from(frequency))).unwrap_or(u64::MAX)
}
