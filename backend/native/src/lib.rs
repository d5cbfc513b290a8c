//! vCPUs by the processor's own virtualization.
//!
//! The kernel around it, our bare-metal image or Redox's, lends what [`Platform`] says and
//! nothing else. No device and no mode is known here.
//!
//! Contract with that kernel: calls come with interrupts off; nothing here blocks or opens an
//! interrupt window outside of the guest; a run ends with [`hypervisor::vcpu::VmExit::Interrupted`]
//! at every host interrupt, and the caller lets the host take it; stack use stays under 16 KiB; no
//! floating point; nothing that a guest does panics. Registers of a guest stay in the processor
//! between two runs: the kernel calls [`release`] on a CPU before another thread, or anybody who
//! uses vector registers, comes to it.
//!
//! Memory: frames may run out wherever they are asked for ([`Platform`]), and the answer is an
//! error. All that a running guest can make the backend take was promised when its VM was made, so
//! a run takes frames but never lacks one, and allocates nothing from the heap. Only making the
//! backend, a VM or a vCPU allocates from the heap, a bounded amount that does not fail softly: the
//! kernel makes sure beforehand that its heap has room. An error that ends a run allocates its text, a
//! line: a kernel keeps as much for itself.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod platform;
#[cfg(test)]
mod testing;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use platform::{CPU_FRAMES, Frame, GuestRam, HostPhys, Platform};
#[cfg(target_arch = "x86_64")]
pub use x86_64::{Native, NativeVcpu, NativeVm, release, tables_below_root};
