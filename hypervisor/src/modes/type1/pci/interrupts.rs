//! The interrupts of one function: INTx, or MSI-X once the guest has enabled it.
//!
//! The function's configuration space and the device behind its BARs share it. It is a leaf lock.

use super::msix::Msix;
use crate::device::{Effect, Effects, SourceId};
use crate::sync::Mutex;

/// Shared by a function and its device.
#[derive(Debug)]
pub struct Interrupts {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The source of its pin.
    pin: Option<SourceId>,
    /// The device wants its pin asserted.
    level: bool,
    /// The pin is asserted.
    asserted: bool,
    /// The command register forbids the pin.
    pin_disabled: bool,
    msix: Msix,
}

impl Interrupts {
    /// Of a function with this requester ID and so many MSI-X vectors.
    pub fn new(requester: u32, pin: Option<SourceId>, vectors: u16) -> Self {
        let msix = Msix::new(requester, vectors);
        let state = State { pin, level: false, asserted: false, pin_disabled: false, msix };
        Self { state: Mutex::new(state) }
    }

    /// Whether messages are sent instead of the pin's level.
    pub fn uses_messages(&self) -> bool {
        self.state.lock().msix.is_enabled()
    }

    /// How many MSI-X vectors there are.
    pub fn vectors(&self) -> u16 {
        self.state.lock().msix.vectors()
    }

    /// Sends a vector's message, or remembers it while it is masked. Does nothing for a vector
    /// that is not there or while messages are not enabled.
    pub fn send(&self, vector: u16, effects: &mut Effects) {
        self.state.lock().msix.send(vector, effects);
    }

    /// The level that the device wants its pin to have.
    pub fn set_level(&self, level: bool, effects: &mut Effects) {
        let mut state = self.state.lock();
        state.level = level;
        state.drive(effects);
    }

    /// Whether the device wants its pin asserted: the status register's bit.
    pub(super) fn level(&self) -> bool {
        self.state.lock().level
    }

    /// The guest has written the command register or the MSI-X capability.
    pub(super) fn configure(
        &self,
        pin_disabled: bool,
        enabled: bool,
        masked: bool,
        effects: &mut Effects,
    ) {
        let mut state = self.state.lock();
        state.pin_disabled = pin_disabled;
        state.msix.configure(enabled, masked, effects);
        state.drive(effects);
    }

    /// Reads the MSI-X table and the pending bits.
    pub(super) fn read_table(&self, offset: u64) -> u32 {
        self.state.lock().msix.read(offset)
    }

    /// Writes the MSI-X table.
    pub(super) fn write_table(&self, offset: u64, mask: u32, value: u32, effects: &mut Effects) {
        self.state.lock().msix.write(offset, mask, value, effects);
    }

    /// After a reset of the machine.
    pub(super) fn reset(&self, effects: &mut Effects) {
        let mut state = self.state.lock();
        (state.level, state.pin_disabled) = (false, false);
        state.msix.reset();
        state.drive(effects);
    }
}

impl State {
    fn drive(&mut self, effects: &mut Effects) {
        let wanted = self.level && !self.pin_disabled && !self.msix.is_enabled();
        let Some(pin) = self.pin.filter(|_| wanted != self.asserted) else { return };
        self.asserted = wanted;
        effects.push(if wanted { Effect::Raise(pin) } else { Effect::Lower(pin) });
    }
}
