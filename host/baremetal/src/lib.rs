//! Bare metal: what our own image decides, reads and keeps count of.
//!
//! Everything here is plain logic that is tested on any host. What touches the processor or the
//! machine is the image itself, `host/baremetal/image`, a workspace of its own because it is
//! linked by a script and built for `x86_64-unknown-none`.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod boot;
pub mod bundle;
pub mod console;
pub mod cpus;
pub mod disk;
pub mod frames;
pub mod net;
pub mod options;
pub mod paging;
pub mod pool;
pub mod rtc;
pub mod sched;
pub mod staging;
pub mod symbols;
pub mod turns;
pub mod windows;
