//! The board: what the devices of one machine are plugged into.
//!
//! Order: [`Board::new`]; then each part is attached: its ranges to [`Devices::mmio`] and
//! [`Devices::pio`], its interrupts as sources of [`Devices::lines`] (the lines are in
//! [`super::layout`]; sources of a level-triggered line may share it) or as messages, its timer
//! to [`Board::timers`]. A part that works outside of a guest's access (a frame has arrived)
//! hands its effects to [`Board::apply`].
//!
//! Lock order, over that of [`crate::device`]: a bus's map, in it one device; then a
//! timer's slot, which is a leaf. Devices never lock each other.

mod power;
mod timers;

pub use power::{Power, Verdict};
pub use timers::{Timed, TimerSlot, Timers};

use crate::device::{Bus, Devices, Effects, InterruptSink, Lines, Request, Unclaimed};
use crate::host::Clock;
use alloc::sync::Arc;

/// What the devices of one machine are plugged into.
pub struct Board {
    /// Both buses and the lines. What nobody claims reads as all ones.
    pub devices: Devices,
    /// The devices' timers.
    pub timers: Arc<Timers>,
    /// The host's clock.
    pub clock: Arc<dyn Clock>,
    /// Turns the machine off or resets it.
    pub power: Arc<Power>,
}

impl Board {
    /// A board without devices, whose interrupts `sink` takes.
    pub fn new(clock: Arc<dyn Clock>, sink: Arc<dyn InterruptSink>, power: Arc<Power>) -> Self {
        let bus = || Bus::new(Unclaimed::Ones);
        let devices = Devices::new(bus(), bus(), Lines::new(sink));
        Self { devices, timers: Arc::new(Timers::new()), clock, power }
    }

    /// Does what a device wished outside of a guest's access. Call it with no lock held.
    pub fn apply(&self, effects: Effects) {
        if let Some(request) = self.devices.apply(effects) {
            self.request(request);
        }
        if self.devices.has_work() {
            // A vCPU has to do it, and all of them may be waiting.
            self.timers.wake();
        }
    }

    /// The guest asked for the whole machine to be turned off or reset.
    pub fn request(&self, request: Request) {
        self.power.ask(match request {
            Request::Shutdown => Verdict::Off,
            Request::Reset => Verdict::Reset,
        });
    }
}

impl core::fmt::Debug for Board {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Board").field("devices", &self.devices).finish_non_exhaustive()
    }
}
