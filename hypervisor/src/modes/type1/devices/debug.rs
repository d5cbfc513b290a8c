//! Ports for firmware and tests, where the description asks for them: 0x402 and 0xe9 write to the
//! console, as Bochs' and QEMU's do, and 0xf4 ends the machine, as QEMU's isa-debug-exit.

use super::UartLink;
use crate::device::{Access, Device, Effects};
use crate::modes::type1::board::{Power, Verdict};
use alloc::sync::Arc;

/// What a read of a debug console gives: it is there.
const PRESENT: u64 = 0xe9;

/// A debug console.
pub struct DebugPort(
    /// Where its output goes.
    pub Arc<UartLink>,
);

impl Device for DebugPort {
    fn name(&self) -> &str {
        "debug console"
    }

    fn read(&mut self, _: Access, _: &mut Effects) -> u64 {
        PRESENT
    }

    fn write(&mut self, _: Access, value: u64, effects: &mut Effects) {
        self.0.put(value.to_le_bytes()[0], effects);
    }
}

/// The port that ends the machine: a value ends it with status `value * 2 + 1`.
pub struct DebugExit(
    /// The machine.
    pub Arc<Power>,
);

impl Device for DebugExit {
    fn name(&self) -> &str {
        "debug exit"
    }

    fn read(&mut self, _: Access, _: &mut Effects) -> u64 {
        0
    }

    fn write(&mut self, _: Access, value: u64, _: &mut Effects) {
        let status = i32::try_from(value & 0x7f).unwrap_or(0) * 2 + 1;
        self.0.ask(Verdict::Exit(status));
    }
}
