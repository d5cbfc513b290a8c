//! What a kernel lends a native backend: frames, their addresses, per-CPU data, kicks, a timer.
//!
//! Two kernels implement it: the bare-metal image (`host/baremetal`) and, later, Redox's.

#![allow(unsafe_code)]

use core::ops::Range;
use hypervisor::memory::{Gpa, GuestMemory};

/// A host-physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPhys(
    /// The address.
    pub u64,
);

/// A run of host-physical memory, `4096 << order` bytes, naturally aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where it is.
    pub at: HostPhys,
    /// Power of two of its pages: 0 is 4 KiB, 9 is 2 MiB, 18 is 1 GiB.
    pub order: u8,
}

/// Frames that the backend asks for on each CPU ([`Platform::cpu_frame`]).
pub const CPU_FRAMES: u64 = 4;

/// A guest's RAM as its kernel keeps it.
///
/// # Safety
/// A frame that [`GuestRam::frame`] has given belongs to this guest and stays where it is until
/// the value is dropped; it holds what [`GuestRam::memory`] shows at the same address; nothing of
/// the host's own is in it.
pub unsafe trait GuestRam: Send + Sync {
    /// The same memory for the host's accesses on the guest's behalf.
    fn memory(&self) -> &GuestMemory;

    /// The same, to tell it what the guest may not do.
    fn memory_mut(&mut self) -> &mut GuestMemory;

    /// The frame behind an address: the largest there is that has the guest's addresses aligned
    /// as its own, zeroed if it was not used before. `None` where there is no RAM. Bounded work;
    /// called at second-level faults. It never fails for want of memory: all RAM was promised when
    /// the guest was made.
    fn frame(&self, at: Gpa) -> Option<Frame>;

    /// A frame of 4 KiB for a second-level page table, zeroed. It is reached by
    /// [`Platform::virt`] and freed by [`Platform::free`]. The first calls, as many as
    /// [`Platform::guest_ram`] was told, never fail; later ones return `None`.
    fn table(&self) -> Option<HostPhys>;
}

/// What a kernel lends.
///
/// All calls are legal with interrupts off and with no lock held by the caller; none blocks.
///
/// # Safety
/// The backend builds page tables and control blocks on what these calls return: each has to
/// keep its promise.
pub unsafe trait Platform: Send + Sync + 'static {
    /// RAM of guests.
    type Ram: GuestRam;

    /// Promises RAM of a guest at these guest-physical ranges (page-aligned, ascending, disjoint),
    /// and `tables` frames for its page tables ([`GuestRam::table`]). A promise is a count: what is
    /// not used is neither taken, zeroed nor mapped. `None` where there is not as much memory.
    fn guest_ram(&self, ranges: &[Range<u64>], tables: u64) -> Option<Self::Ram>;

    /// A frame of `4096 << order` bytes, zeroed, naturally aligned; `order` is at most 10.
    fn alloc(&self, order: u8) -> Option<HostPhys>;

    /// A frame of 4 KiB, zeroed, for the backend's own data of this CPU, for ever. A CPU asks for at
    /// most [`CPU_FRAMES`], when it first runs a guest, which may be when guests have been promised
    /// all memory: a kernel sets these frames aside.
    fn cpu_frame(&self) -> Option<HostPhys>;

    /// Gives a frame back.
    ///
    /// # Safety
    /// It came from [`Platform::alloc`] with the same order, or from [`GuestRam::table`] (order
    /// 0), and neither processor nor host uses
    /// it any more.
    unsafe fn free(&self, at: HostPhys, order: u8);

    /// Where the host has a frame of [`Platform::alloc`]; valid until it is freed.
    fn virt(&self, at: HostPhys) -> *mut u8;

    /// The number of this CPU, below [`Platform::cpus`]. Stable while interrupts are off.
    fn cpu(&self) -> u32;

    /// How many CPUs there are.
    fn cpus(&self) -> u32;

    /// A word of this CPU's own for the backend, 0 at first.
    fn cpu_slot(&self) -> *mut usize;

    /// Saves the floating-point state that is in the processor to `from` and loads `to`: XSAVE
    /// areas of 4096 bytes, 64-byte aligned, in standard format. The kernel says which components
    /// it keeps apart ([`Platform::xcr0`]).
    ///
    /// # Safety
    /// Both are valid; `to` was saved before or is a valid initial area.
    unsafe fn fpu_swap(&self, from: *mut u8, to: *const u8);

    /// The components that a guest may be given in XCR0.
    fn xcr0(&self) -> u64;

    /// Makes a CPU leave its guest soon: an IPI without payload. It may be spurious.
    fn kick(&self, cpu: u32);

    /// To be called in every spin.
    fn relax(&self);

    /// Nanoseconds of a clock that never goes back, the same on all CPUs.
    fn now_ns(&self) -> u64;

    /// Frequency of the cycle counter in Hz, the same on all CPUs.
    fn cycle_frequency(&self) -> u64;

    /// Asks for an interrupt on this CPU at a time of [`Platform::now_ns`]'s clock, in place of
    /// an earlier wish; `None` withdraws it. It only forces an exit. `false`: the kernel's own
    /// tick has to do.
    fn arm_timer(&self, at_ns: Option<u64>) -> bool;
}
