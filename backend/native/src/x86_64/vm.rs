//! What the vCPUs of one VM share.

use super::cpuid::Cpuid;
use super::memory::Backing;
use super::processor::rdtsc;
use super::tsc::Speed;
use super::vendor::Vendor;
use crate::Platform;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use hypervisor::memory::{GuestMemory, Perms};
use hypervisor::vcpu::BackendError;
use hypervisor::vcpu::machine::tsc::HostTsc;

/// What kind of guest it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A unikernel: no interrupts, no firmware. What it may not do is its end.
    Unikernel,
    /// A whole machine.
    Machine,
}

/// vCPUs of one VM: their numbers are local APIC IDs, of which 255 means all.
pub(crate) const MAX_VCPUS: u32 = 255;

/// How many VMs there have been.
static VMS: AtomicU64 = AtomicU64::new(0);

/// A VM of one vendor's.
pub(crate) struct Vm<P: Platform, V: Vendor<P>> {
    pub platform: &'static P,
    pub shared: Arc<V::Shared>,
    pub kind: Kind,
    pub backing: Backing<P, V::Tables>,
    /// No other VM's: from 1 on.
    pub number: u64,
    /// How fast every vCPU's cycle counter runs.
    pub tsc: Speed,
    /// What is added to the host's, when that has been scaled: the guest's begins at 0.
    pub tsc_offset: u64,
    /// Numbers of vCPUs that were made.
    made: [AtomicU64; 4],
}

/// A VM as its owner holds it. Its fields are dropped in order: what points into the memory, then
/// the memory.
pub(crate) struct VmHandle<P: Platform, V: Vendor<P>> {
    pub memory: GuestMemory,
    pub vm: Arc<Vm<P, V>>,
}

impl<P: Platform, V: Vendor<P>> VmHandle<P, V> {
    /// A VM with RAM at these ranges, and a TSC of the frequency that is asked for.
    ///
    /// # Errors
    /// If there is not as much memory, the ranges are not what they should be, or the processor
    /// cannot scale the TSC so.
    pub fn new(
        platform: &'static P,
        shared: &Arc<V::Shared>,
        kind: Kind,
        ranges: &[Range<u64>],
        tsc_khz: Option<u32>,
    ) -> Result<Self, BackendError> {
        check(ranges)?;
        let host = HostTsc { hz: platform.cycle_frequency(), scales: V::scales_tsc(shared) };
        let tsc = Speed::new(host, tsc_khz)?;
        let usual = match kind {
            // What is not a unikernel's code is not executed.
            Kind::Unikernel => Perms::READ | Perms::WRITE,
            Kind::Machine => Perms::all(),
        };
        let backing = Backing::new(platform, ranges, usual, V::largest_leaf(shared));
        let backing = backing.ok_or_else(|| {
            let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            BackendError::new(alloc::format!(
                "this machine has not enough free memory for {} MiB of a guest's RAM and its page \
                 tables: ask for less, or destroy another VM",
                bytes.div_ceil(1 << 20)
            ))
        })?;
        let memory = backing.memory().clone();
        let tsc_offset = tsc.ratio.scale(rdtsc()).wrapping_neg();
        let made = [const { AtomicU64::new(0) }; 4];
        let number = 1 + VMS.fetch_add(1, Ordering::Relaxed);
        let shared = shared.clone();
        let vm = Vm { platform, shared, kind, backing, number, tsc, tsc_offset, made };
        Ok(Self { memory, vm: Arc::new(vm) })
    }

    /// Restricts what guest and host may do with a range.
    ///
    /// # Errors
    /// If the range is not inside one range of RAM or not of whole pages; if there is a vCPU.
    pub fn protect(&mut self, range: Range<u64>, perms: Perms) -> Result<(), BackendError> {
        let vm = Arc::get_mut(&mut self.vm).ok_or_else(|| {
            BackendError::new("memory is protected before the first vCPU is made, not after")
        })?;
        vm.backing.protect(range.clone(), perms)?;
        Ok(self.memory.protect(range, perms)?)
    }
}

impl<P: Platform, V: Vendor<P>> Vm<P, V> {
    /// Takes a vCPU's number, once.
    ///
    /// # Errors
    /// If it has been taken, or there are no such numbers.
    pub fn take_number(&self, index: u32) -> Result<(), BackendError> {
        let error = || BackendError::new(alloc::format!("vCPU {index} has been made already"));
        if index >= MAX_VCPUS {
            return Err(BackendError::new(alloc::format!(
                "vCPU {index}: a VM has at most {MAX_VCPUS} vCPUs, numbered from 0"
            )));
        }
        let [word, bit] = [index / 64, index % 64];
        let word = usize::try_from(word).map_err(|_| error())?;
        let before = self.made[word].fetch_or(1 << bit, Ordering::Relaxed);
        if before & 1 << bit != 0 { Err(error()) } else { Ok(()) }
    }

    /// Whether the guest has some feature at all is for its CPUID to say.
    pub fn default_cpuid(&self) -> Cpuid {
        Cpuid::new(&super::cpuid::supported(super::processor::cpuid, self.platform.xcr0()))
    }
}

fn check(ranges: &[Range<u64>]) -> Result<(), BackendError> {
    let page = |at: u64| at.is_multiple_of(4096);
    let whole = ranges.iter().all(|r| page(r.start) && page(r.end) && r.start < r.end);
    let ascending = ranges.windows(2).all(|two| two[0].end <= two[1].start);
    let low = ranges.iter().all(|r| r.end <= super::memory::END);
    if ranges.is_empty() || !whole || !ascending || !low {
        let text = "a guest's RAM has to be ranges of whole pages below 2^48, ascending";
        return Err(BackendError::new(text));
    }
    Ok(())
}

/// The one range of a unikernel's RAM.
pub(crate) fn from_zero(bytes: u64) -> Vec<Range<u64>> {
    core::iter::once(0..bytes).collect()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use crate::testing::{Board, board};
    use crate::x86_64::fake::Fake;

    fn vm(ranges: &[Range<u64>]) -> Result<VmHandle<Board, Fake>, BackendError> {
        VmHandle::new(board(), &Arc::default(), Kind::Machine, ranges, None)
    }

    #[test]
    fn ram_is_of_whole_pages_in_order() {
        assert!(vm(&[0..0x1000, 0x2000..0x3000]).is_ok());
        let bad: [&[Range<u64>]; 5] =
            [&[], &[0..0x1001], &[0x1000..0x1000], &[0x2000..0x3000, 0..0x1000], &[0..1 << 49]];
        for ranges in bad {
            assert!(vm(ranges).is_err(), "{ranges:x?}");
        }
    }

    #[test]
    fn each_number_is_used_once() {
        let handle = vm(&from_zero(0x1000)).unwrap();
        for index in [0, 1, 63, 64, 254] {
            assert!(handle.vm.take_number(index).is_ok());
            assert!(handle.vm.take_number(index).is_err());
        }
        assert!(handle.vm.take_number(255).is_err());
    }
}
