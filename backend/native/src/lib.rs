//! vCPUs by the processor's own virtualization.
//!
//! The kernel around it, our bare-metal image or Redox's, lends what [`Platform`] says and
//! nothing else. No device and no mode is known here.
//!
//! Contract with that kernel: calls come with interrupts off; nothing here blocks or opens an
//! interrupt window outside of the guest; a run ends with [`hypervisor::vcpu::VmExit::Interrupted`]
//! at every host interrupt, and the caller lets the host take it; allocation is fallible; stack
//! use stays under 16 KiB; no floating point; nothing that a guest does panics. Registers of a guest
//! stay in the processor between two runs: the kernel calls [`release`] on a CPU before another
//! thread, or anybody who uses vector registers, comes to it.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod platform;
#[cfg(test)]
mod testing;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use platform::{Frame, GuestRam, HostPhys, Platform};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{Native, NativeVcpu, NativeVm, release};
