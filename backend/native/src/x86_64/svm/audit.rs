//! Proof that no clean bit is missed: QEMU's emulated processor reads the whole VMCB whatever the
//! bits say, and would not notice.
//!
//! Only in tests, and in images with the feature `audit`: a copy of the VMCB as the last exit left
//! it. A field that has changed since, in a group that is said to be clean, is a panic.

use super::clean::{Clean, GROUPS};
use super::vmcb::Vmcb;
use alloc::vec::Vec;
use core::mem::size_of;

/// What is known of the last exit.
#[derive(Default)]
pub(crate) struct Audit {
    bytes: Vec<u8>,
    /// The CPU of that exit.
    cpu: Option<u32>,
}

#[allow(unsafe_code)]
fn bytes(vmcb: &Vmcb) -> &[u8] {
    // SAFETY: integers without gaps between them, of this size.
    unsafe { core::slice::from_raw_parts((&raw const *vmcb).cast(), size_of::<Vmcb>()) }
}

impl Audit {
    /// Checks the bits before a VMRUN on this CPU, whose last VMCB this was, or was not.
    ///
    /// # Panics
    /// If one is set that must not be.
    pub fn entry(&self, vmcb: &Vmcb, cpu: u32, was_last: bool) {
        let clean = Clean::from_bits_retain(vmcb.control.vmcb_clean);
        if clean.is_empty() {
            return;
        }
        let known = self.cpu == Some(cpu) && was_last;
        assert!(known, "VMCB clean bits {clean:?} on CPU {cpu}, which has not this VMCB");
        assert!(Clean::all().contains(clean), "VMCB clean bits {clean:?} that have no meaning");
        for (group, ranges) in GROUPS.iter().filter(|(group, _)| clean.contains(*group)) {
            for range in *ranges {
                let (now, then) = (&bytes(vmcb)[range.clone()], &self.bytes[range.clone()]);
                assert!(now == then, "VMCB clean bit {group:?} though {range:#x?} has changed");
            }
        }
    }

    /// Notes what an exit on this CPU has left.
    pub fn exit(&mut self, vmcb: &Vmcb, cpu: u32) {
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes(vmcb));
        self.cpu = Some(cpu);
    }
}
