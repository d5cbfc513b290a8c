//! Local APICs, where the backend has none of its own, and the messages between them
//! (Intel SDM vol. 3 chapter 11, "Advanced Programmable Interrupt Controller").
//!
//! A [`LocalApic`] belongs to its vCPU's thread and needs no lock. Everybody else (other vCPUs'
//! inter-processor interrupts, the I/O APIC, devices' messages) reaches it through its [`Inbox`],
//! by way of [`ApicBus`], which knows who is meant. Those calls take no lock either; they may end
//! in a kick.

mod bus;
mod faces;
mod inbox;
mod local;
mod message;
mod registers;
#[cfg(test)]
mod tests;
mod timer;
mod vectors;

pub use bus::ApicBus;
pub use inbox::{Identity, Inbox, Requests};
pub use local::LocalApic;
pub use message::{Delivery, Destination, Interrupt};
pub use registers::{ApicBase, Refused};
pub use timer::{FREQUENCY_KHZ, Instant};
pub use vectors::Vectors;
