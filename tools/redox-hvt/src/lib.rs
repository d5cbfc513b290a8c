//! What runs Solo5 unikernels on Linux: all of `redox-hvt` but its command line's first look and
//! its own start, for that program and for `redox-vm`.
//!
//! The order of a run, which is also the order of the modules: options ([`args`]), read the image,
//! attach its devices ([`attach`]), choose a backend ([`choose`]), make the guest, give up
//! privileges ([`confine`]), run it, tell how it ended ([`run`]).

pub mod args;
pub mod attach;
pub mod choose;
pub mod confine;
mod dumpcore;
mod events;
mod gdb;
pub mod outside;
mod report;
mod ring;
pub mod run;
pub mod tell;
mod troubles;
pub mod usage;

/// Exit status for everything that is wrong on this side, as upstream's.
pub const FAILURE: i32 = 1;
