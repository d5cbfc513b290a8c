//! The device framework: what a guest reaches through ports and addresses without memory.
//!
//! Order: put [`Device`]s on a [`Bus`] each with [`Bus::insert`], declare their interrupts with
//! [`Lines::source`], join everything in [`Devices`], and give every [`crate::vcpu::VmExit`] to
//! [`Devices::answer`]. A device does not call the interrupt controller or the bus: it returns
//! [`Effects`], which are applied after its lock and the bus's have been dropped.
//!
//! A device holds its lock for bounded work only. What may block or take long, such as a host's
//! input and output, is an [`Effect::Work`], done by the thread that applies the effects.
//!
//! Lock order: the bus's map (read), in it one device, both dropped; then the lines, under
//! which the [`InterruptSink`] is called. The sink is a leaf: it calls nothing here.
//!
//! Nothing that a guest does panics: an address without a device follows the bus's [`Unclaimed`]
//! rule, and a layout that a guest cannot have is refused and counted.

mod access;
mod bus;
mod devices;
mod effects;
mod interrupt;

pub use access::{Access, Width};
pub use bus::{Bus, BusError, DeviceRef, Space, Unclaimed};
pub use devices::{Devices, Outcome, Request};
pub use effects::{Effect, Effects, LayoutChange, Work, WorkRef};
pub use interrupt::{InterruptSink, Lines, MsiMessage, SourceId, Trigger};

/// A device on a bus. It knows no backend and no transport.
pub trait Device: Send {
    /// A name for messages.
    fn name(&self) -> &str;

    /// Answers a read. Only the low bits of the result that fit the access's width count.
    fn read(&mut self, access: Access, effects: &mut Effects) -> u64;

    /// Takes a write. `value` has no bits beyond the access's width.
    fn write(&mut self, access: Access, value: u64, effects: &mut Effects);
}
