//! What a Linux host lends a guest, and how a process that serves one confines itself.
//!
//! Everything on the data path makes its system calls inline (rustix, and `transfer` where guest
//! memory is concerned), without errno, locks, allocation or thread-local storage: in the sandbox
//! backend this code runs in the guest's own process, in a signal handler, with a foreign FS base.

pub mod begin;
pub mod blob;
pub mod block;
pub mod clock;
pub mod confine;
pub mod console;
#[cfg(test)]
mod forked;
pub mod gdb;
pub mod net;
pub mod pin;
pub mod room;
pub mod signals;
pub mod standard;
mod sys;
pub mod terminal;
mod transfer;
pub mod type1;
pub mod wait;
