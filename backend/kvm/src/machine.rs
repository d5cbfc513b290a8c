//! What a VM and its vCPU share: the VM's descriptor and the host memory behind its RAM.

#![allow(unsafe_code)]

use crate::doorbell;
use crate::error::refused;
use hypervisor::memory::{Gpa, GuestMemory, HostBlock, Perms};
use hypervisor::vcpu::{BackendError, Doorbell};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::Arc;

/// Granularity of permissions and of RAM, in bytes.
pub(crate) const PAGE: u64 = 4096;

/// A VM's descriptor and RAM.
///
/// Drop order is the order of the fields: KVM lets go of the VM before its memory is unmapped.
/// vCPUs hold an `Arc` of this and close their own descriptor first, so the kernel never has a
/// vCPU whose memory is gone, or has become other memory of this process. Each [`GuestMemory`] of
/// this RAM owns it too.
pub(crate) struct Machine {
    vm: VmFd,
    ram: Arc<Ram>,
}

impl Machine {
    /// Gives `vm` the RAM, as slot 0 from guest-physical address 0.
    pub(crate) fn new(vm: VmFd, ram: Arc<Ram>) -> Result<Self, BackendError> {
        let machine = Self::without_slots(vm, ram);
        let whole = 0..machine.ram.len as u64;
        machine.set_slot(0, whole, 0).map_err(refused("giving the VM its memory"))?;
        Ok(machine)
    }

    /// The same with the RAM not in the guest's address space yet.
    pub(crate) fn without_slots(vm: VmFd, ram: Arc<Ram>) -> Self {
        Self { vm, ram }
    }

    pub(crate) fn vm(&self) -> &VmFd {
        &self.vm
    }

    pub(crate) fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// Makes `range` of the RAM appear at its guest-physical address, as memory slot `slot` with
    /// KVM's `flags`.
    pub(crate) fn set_slot(
        &self,
        slot: u32,
        range: Range<u64>,
        flags: u32,
    ) -> Result<(), kvm_ioctls::Error> {
        let at = range.start;
        self.set_slot_at(slot, range, at, flags)
    }

    /// Makes `range` of the RAM appear at guest-physical address `at`.
    pub(crate) fn set_slot_at(
        &self,
        slot: u32,
        range: Range<u64>,
        at: u64,
        flags: u32,
    ) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: at,
            memory_size: range.end - range.start,
            userspace_addr: self.ram.host as u64 + range.start,
        };
        // SAFETY: every caller passes a range inside of the RAM, which stays mapped until the VM
        // is gone (see the drop order above).
        unsafe { self.vm.set_user_memory_region(region) }
    }

    /// What a 4-byte write of any value to `port` rings without an exit, see
    /// [`doorbell::ring_on_write`].
    pub(crate) fn doorbell(&self, port: u16) -> Result<Option<Arc<dyn Doorbell>>, BackendError> {
        // SAFETY: `self` holds the descriptor open for longer than this call.
        let vm = unsafe { BorrowedFd::borrow_raw(self.vm.as_raw_fd()) };
        doorbell::ring_on_write(vm, port)
    }

    /// Removes memory slot `slot`.
    pub(crate) fn remove_slot(&self, slot: u32) -> Result<(), kvm_ioctls::Error> {
        self.set_slot(slot, 0..0, 0)
    }
}

/// Host memory of a guest's RAM, mapped until it is dropped.
pub(crate) struct Ram {
    host: *mut u8,
    len: usize,
}

// SAFETY: a plain mapping, owned by this value; who touches it does so through `GuestMemory`.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// Maps `len` bytes of zeros. No page is allocated before it is used.
    pub(crate) fn new(len: u64) -> Result<Arc<Self>, BackendError> {
        let error = |why: String| {
            BackendError::new(format!("cannot map {len} bytes of guest memory: {why}"))
        };
        if len == 0 || !len.is_multiple_of(PAGE) {
            return Err(error(format!("ask for a multiple of {PAGE}")));
        }
        let size = usize::try_from(len).map_err(|_| error("it does not fit this host".into()))?;
        // Shared, not private: a page is then allocated once, by whoever touches it first, and
        // is never copied on write under the guest.
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at an address that the kernel chooses.
        let host = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), size, access, flags) }
            .map_err(|e| error(format!("{e}: ask for less")))?;
        Ok(Arc::new(Self { host: host.cast(), len: size }))
    }

    /// The address space that this RAM is, from guest-physical address 0.
    ///
    /// # Errors
    /// Never in practice: there is only one block.
    pub(crate) fn as_guest_memory(self: &Arc<Self>) -> Result<GuestMemory, BackendError> {
        let mut memory = GuestMemory::new();
        // SAFETY: mapped until `self` is dropped; what `protect` takes away, `GuestMemory::protect`
        // is told as well.
        memory.add(unsafe { HostBlock::new(Gpa(0), self.len as u64, self.host, self.clone()) })?;
        Ok(memory)
    }

    /// The address space in which this RAM lies, one range after the other, at `ranges`.
    ///
    /// # Errors
    /// If they overlap or are more than this RAM.
    pub(crate) fn spread_over(
        self: &Arc<Self>,
        ranges: &[Range<u64>],
    ) -> Result<GuestMemory, BackendError> {
        let mut memory = GuestMemory::new();
        let mut offset = 0usize;
        for range in ranges {
            let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            let end = offset.checked_add(len).filter(|&end| end <= self.len);
            let end = end.ok_or_else(|| BackendError::new("more ranges of RAM than RAM"))?;
            // SAFETY: inside of the mapping, which stays as for `as_guest_memory`.
            let block = unsafe {
                HostBlock::new(Gpa(range.start), len as u64, self.host.add(offset), self.clone())
            };
            memory.add(block)?;
            offset = end;
        }
        Ok(memory)
    }

    /// Restricts what the host may do with a page-aligned range, and with it the guest: KVM maps
    /// no more than the host may do. The host never executes guest memory. KVM itself cannot
    /// take the right to execute away: the guest's page tables do.
    pub(crate) fn protect(&self, range: Range<u64>, perms: Perms) -> Result<(), BackendError> {
        let outside = || {
            BackendError::new(format!(
                "guest memory {:#x}..{:#x} cannot be protected: not whole pages inside the \
                 guest's memory",
                range.start, range.end
            ))
        };
        let aligned = range.start.is_multiple_of(PAGE) && range.end.is_multiple_of(PAGE);
        if !aligned || range.start > range.end || range.end > self.len as u64 {
            return Err(outside());
        }
        let start = usize::try_from(range.start).map_err(|_| outside())?;
        let size = usize::try_from(range.end - range.start).map_err(|_| outside())?;
        if size == 0 {
            return Ok(());
        }
        // SAFETY: inside of the mapping, as checked above; no Rust reference points there.
        unsafe { rustix::mm::mprotect(self.host.add(start).cast(), size, host_access(perms)) }
            .map_err(|e| BackendError::new(format!("mprotect of guest memory failed: {e}")))
    }

    /// Writes to the RAM whatever its permissions are, which are `perms` for every page of it:
    /// a debugger's breakpoint in the guest's text.
    pub(crate) fn poke(&self, at: u64, bytes: &[u8], perms: Perms) -> Result<(), BackendError> {
        let end = at.saturating_add(bytes.len() as u64);
        let pages = at / PAGE * PAGE..end.div_ceil(PAGE).saturating_mul(PAGE);
        self.protect(pages.clone(), Perms::READ | Perms::WRITE)?;
        let offset = usize::try_from(at).map_err(|e| BackendError::new(e.to_string()))?;
        // SAFETY: `protect` has checked that these pages are inside of the mapping and made them
        // writable; `bytes` is the host's own memory.
        unsafe { self.host.add(offset).copy_from(bytes.as_ptr(), bytes.len()) };
        self.protect(pages, perms)
    }

    /// Reads a byte of the guest's text, which the host may read although the guest may perhaps
    /// only execute it. The caller has checked that the page has some permission.
    pub(crate) fn text_byte(&self, at: u64) -> Option<u8> {
        let offset = usize::try_from(at).ok().filter(|&offset| offset < self.len)?;
        // SAFETY: inside of the mapping; a page with any permission is readable, see
        // `host_access`. The guest may write meanwhile: any byte is a value.
        Some(unsafe { self.host.add(offset).read_volatile() })
    }
}

/// What the host may do with memory that the guest may use with `perms`.
fn host_access(perms: Perms) -> MprotectFlags {
    let mut access = MprotectFlags::empty();
    // What is fetched must be readable: KVM reads it on the guest's behalf.
    if perms.intersects(Perms::READ | Perms::EXEC) {
        access |= MprotectFlags::READ;
    }
    if perms.contains(Perms::WRITE) {
        access |= MprotectFlags::READ | MprotectFlags::WRITE;
    }
    access
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and whoever uses it owns this. It cannot fail for a mapping
        // that exists.
        let _ = unsafe { rustix::mm::munmap(self.host.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_never_executes_guest_memory() {
        assert_eq!(host_access(Perms::READ | Perms::EXEC), MprotectFlags::READ);
        assert_eq!(host_access(Perms::EXEC), MprotectFlags::READ);
        assert_eq!(host_access(Perms::empty()), MprotectFlags::empty());
        for bits in 0..8 {
            assert!(!host_access(Perms::from_bits_truncate(bits)).contains(MprotectFlags::EXEC));
        }
    }

    #[test]
    fn only_whole_pages_inside_are_protected() {
        let ram = Ram::new(4 * PAGE).unwrap();
        for (start, end) in [(1, PAGE), (0, PAGE + 1), (0, 5 * PAGE), (2 * PAGE, PAGE)] {
            assert!(ram.protect(start..end, Perms::READ).is_err(), "{start} {end}");
        }
        assert!(ram.protect(4 * PAGE..4 * PAGE, Perms::READ).is_ok());
        assert!(ram.protect(0..4 * PAGE, Perms::READ).is_ok());
    }

    #[test]
    fn ram_stays_mapped_while_somebody_uses_it() {
        let ram = Ram::new(PAGE).unwrap();
        let memory = ram.as_guest_memory().unwrap();
        drop(ram);
        memory.write_obj(Gpa(8), &7u64).unwrap();
        assert_eq!(memory.read_obj::<u64>(Gpa(8)), Ok(7));
    }

    #[test]
    fn odd_sizes_are_refused_before_mapping() {
        for len in [0, 1, PAGE + 1, !(PAGE - 1)] {
            assert!(Ram::new(len).is_err(), "{len}");
        }
    }

    #[test]
    fn new_memory_is_zero_and_writable() {
        let ram = Ram::new(2 * PAGE).unwrap();
        let memory = ram.as_guest_memory().unwrap();
        assert_eq!(memory.read_obj::<u64>(Gpa(PAGE)), Ok(0));
        memory.write_obj(Gpa(2 * PAGE - 8), &7u64).unwrap();
        assert_eq!(memory.read_obj::<u64>(Gpa(2 * PAGE - 8)), Ok(7));
    }
}
