//! A server of the GDB remote protocol ("Debugging with GDB", appendix E) for one vCPU.
//!
//! Order: [`super::DebugVcpu::attach`], find somebody to talk to (a [`Link`], the host's), then
//! [`serve`], which runs the guest as the debugger says and answers its exits meanwhile. It comes
//! back when the guest has ended or the debugger has left ([`Done`]).
//!
//! The protocol itself is the crate gdbstub's. It takes a peer that follows the protocol for
//! granted, and any other for an error that ends the session; so only whole packets with a right
//! checksum get to it (`frame`), and a command that it cannot read is refused to the peer.
//!
//! Nothing is shown of what the debugger itself has changed: breakpoints are not in the memory
//! that it reads.

mod frame;
mod registers;
mod session;
mod target;
#[cfg(test)]
mod tests;
mod wire;

pub use frame::{Frame, Framer};
pub use session::serve;

use crate::vcpu::Ending;

/// What a [`Link`] has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The next byte.
    Byte(u8),
    /// Nothing so far.
    Nothing,
    /// The host wants something else meanwhile, as after [`crate::vcpu::VmExit::Interrupted`].
    Interrupted,
    /// The connection has ended.
    Gone,
}

/// A connection to a debugger. When bytes come while the guest runs, the host interrupts the vCPU.
pub trait Link {
    /// The next byte. Only with `wait` it is waited for.
    fn next(&mut self, wait: bool) -> Heard;

    /// Sends all of it. `false` if the connection has ended.
    fn send(&mut self, bytes: &[u8]) -> bool;
}

/// How a session has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// With the guest, about which the debugger knows.
    Ended(Ending),
    /// The debugger has detached. The guest has no breakpoints any more and waits to be run.
    Detached,
    /// The debugger wants the guest to be ended.
    Killed,
    /// The connection has ended without a word, or by one that is no packet. If the guest was running, it has no breakpoints
    /// any more and waits to be run; else nobody will say how it goes on.
    Lost {
        /// Whether the guest was running.
        running: bool,
    },
}
