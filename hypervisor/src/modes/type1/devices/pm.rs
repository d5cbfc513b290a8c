//! ACPI's fixed hardware: PM1 event and control registers and the power management timer (ACPI
//! 6.5 §4.8.3). The machine is always in ACPI mode: there is no SMI command port.
//!
//! On the bus it is twelve ports from [`layout::PM1_EVENT`](crate::modes::type1::layout).

use super::{nanoseconds, read_bytes, ticks, write_bytes};
use crate::device::{Access, Device, Effect, Effects, SourceId};
use crate::host::Clock;
use crate::modes::type1::board::{Timed, TimerSlot};
use crate::modes::type1::layout::SLP_TYP_S5;
use crate::sync::Mutex;
use alloc::sync::Arc;

/// The timer's frequency in Hz (ACPI 6.5 §4.8.2.1).
pub const FREQUENCY: u64 = 3_579_545;
/// It is 32 bits wide (FADT TMR_VAL_EXT); its status is set when its highest bit changes.
const HALF: u64 = 1 << 31;

bitflags::bitflags! {
    /// PM1 status and enable (ACPI 6.5 tables 4.13 and 4.14).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    struct Events: u16 {
        const TIMER = 1 << 0;
        const GLOBAL = 1 << 5;
        const POWER_BUTTON = 1 << 8;
        const SLEEP_BUTTON = 1 << 9;
        const RTC = 1 << 10;
    }
}

/// PM1 control: ACPI mode.
const SCI_ENABLE: u16 = 1;
/// PM1 control: go to sleep.
const SLEEP_ENABLE: u16 = 1 << 13;
/// What the control register keeps.
const CONTROL_BITS: u16 = 0x1c02;

/// The registers.
pub struct Pm {
    status: Events,
    enable: Events,
    control: u16,
    /// The halves of the timer's range that had passed when its status was looked at.
    halves: u64,
    origin: u64,
    clock: Arc<dyn Clock>,
    slot: TimerSlot,
    sci: SourceId,
}

impl Pm {
    /// After power-up. `sci` is level-triggered.
    pub fn new(clock: Arc<dyn Clock>, slot: TimerSlot, sci: SourceId) -> Self {
        let origin = clock.monotonic_ns();
        Self {
            status: Events::default(),
            enable: Events::default(),
            control: 0,
            halves: 0,
            origin,
            clock,
            slot,
            sci,
        }
    }

    /// Back to the state after power-up; the timer runs on.
    pub fn reset(&mut self) {
        self.status = Events::default();
        self.enable = Events::default();
        self.control = 0;
        // What passed before is no event any more.
        self.halves = self.timer() / HALF;
        self.slot.set(None);
    }

    fn timer(&self) -> u64 {
        ticks(self.clock.monotonic_ns().saturating_sub(self.origin), FREQUENCY)
    }

    /// Sets the timer's status if its highest bit has changed.
    fn look_at_timer(&mut self) {
        let halves = self.timer() / HALF;
        if core::mem::replace(&mut self.halves, halves) != halves {
            self.status |= Events::TIMER;
        }
    }

    fn update(&mut self, effects: &mut Effects) {
        let asserted = self.status.intersects(self.enable);
        effects.push(if asserted { Effect::Raise(self.sci) } else { Effect::Lower(self.sci) });
        let at = nanoseconds((self.halves + 1).saturating_mul(HALF), FREQUENCY);
        let wanted = self.enable.contains(Events::TIMER) && !self.status.contains(Events::TIMER);
        self.slot.set(wanted.then(|| self.origin.saturating_add(at)));
    }

    fn read_byte(&mut self, offset: u8) -> u8 {
        let index = usize::from(offset & 1);
        match offset {
            0..=1 => {
                self.look_at_timer();
                self.status.bits().to_le_bytes()[index]
            }
            2..=3 => self.enable.bits().to_le_bytes()[index],
            4..=5 => (self.control | SCI_ENABLE).to_le_bytes()[index],
            8..=11 => self.timer().to_le_bytes()[usize::from(offset & 3)],
            _ => 0,
        }
    }

    fn write_byte(&mut self, offset: u8, value: u8, effects: &mut Effects) {
        let shift = u32::from(offset & 1) * 8;
        let (value, kept) = (u16::from(value) << shift, !(0xff << shift));
        match offset {
            0..=1 => {
                self.look_at_timer();
                self.status.remove(Events::from_bits_truncate(value));
            }
            2..=3 => {
                let enable = self.enable.bits() & kept | value;
                self.enable = Events::from_bits_truncate(enable);
            }
            4..=5 => {
                self.control = (self.control & kept | value) & CONTROL_BITS;
                let kind = u16::from(SLP_TYP_S5);
                if value & SLEEP_ENABLE != 0 && self.control >> 10 & 7 == kind {
                    effects.push(Effect::Shutdown);
                }
            }
            _ => {}
        }
    }

    /// Somebody presses the power button.
    fn press(&mut self, effects: &mut Effects) {
        self.status |= Events::POWER_BUTTON;
        self.update(effects);
    }
}

impl Device for Pm {
    fn name(&self) -> &str {
        "ACPI"
    }

    fn read(&mut self, access: Access, _: &mut Effects) -> u64 {
        if access.offset == 8 {
            // Once, so that its bytes are of one moment.
            return self.timer();
        }
        read_bytes(access, |offset| self.read_byte(offset))
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects) {
        write_bytes(access, value, |offset, value| self.write_byte(offset, value, effects));
        self.update(effects);
    }
}

impl Timed for Pm {
    fn expire(&mut self, _: u64, effects: &mut Effects) {
        self.look_at_timer();
        self.update(effects);
    }
}

/// The machine's power button.
#[derive(Clone)]
pub struct PowerButton(
    /// The registers.
    pub Arc<Mutex<Pm>>,
);

impl PowerButton {
    /// Presses it; gives what follows.
    pub fn press(&self) -> Effects {
        let mut effects = Effects::new();
        self.0.lock().press(&mut effects);
        effects
    }
}

#[cfg(test)]
mod tests;
