//! A PC's memory as KVM's slots: its ranges of RAM, cut where memory is read-only.
//!
//! A write to a read-only slot is an exit like one to device memory (KVM API §4.35,
//! `KVM_MEM_READONLY`).

use crate::error::refused;
use crate::machine::{Machine, PAGE};
use hypervisor::memory::{GuestMemory, Perms};
use hypervisor::vcpu::BackendError;
use kvm_bindings::KVM_MEM_READONLY;
use std::ops::Range;

/// One slot: guest-physical addresses, and KVM's flags.
type Slot = (Range<u64>, u32);

/// Makes the RAM appear at its addresses, with the permissions that it has now.
pub(super) fn set(machine: &Machine, memory: &GuestMemory) -> Result<(), BackendError> {
    let mut slot = 0;
    let mut offset = 0;
    for block in memory.blocks() {
        let whole = block.range();
        for (range, flags) in pieces(&whole, memory) {
            let at = range.start;
            let inside = offset + (range.start - whole.start)..offset + (range.end - whole.start);
            let done = machine.set_slot_at(slot, inside, at, flags);
            done.map_err(refused("giving the VM its memory"))?;
            slot += 1;
        }
        offset += whole.end - whole.start;
    }
    Ok(())
}

/// A range of RAM, in pieces that the guest may write and those that it may not.
fn pieces(whole: &Range<u64>, memory: &GuestMemory) -> Vec<Slot> {
    let mut pieces: Vec<Slot> = Vec::new();
    let mut at = whole.start;
    for (run, perms) in memory.protections() {
        let run = run.start.max(whole.start)..run.end.min(whole.end);
        if run.is_empty() || perms.contains(Perms::WRITE) {
            continue;
        }
        pieces.push((at..run.start, 0));
        pieces.push((run.clone(), KVM_MEM_READONLY));
        at = run.end;
    }
    pieces.push((at..whole.end, 0));
    pieces.retain(|(range, _)| !range.is_empty());
    pieces
}

/// Refuses ranges that are not whole pages, in order and apart.
pub(super) fn check(ranges: &[Range<u64>]) -> Result<u64, BackendError> {
    let mut end = 0;
    let mut total = 0u64;
    for range in ranges {
        let aligned = range.start.is_multiple_of(PAGE) && range.end.is_multiple_of(PAGE);
        if !aligned || range.start < end || range.is_empty() {
            return Err(BackendError::new(format!(
                "RAM at {:#x}..{:#x} is not whole pages after the range before",
                range.start, range.end
            )));
        }
        end = range.end;
        total = total.saturating_add(range.end - range.start);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Ram;

    #[test]
    fn memory_is_cut_where_it_is_read_only() {
        let ram = Ram::new(12 * PAGE).unwrap();
        let mut memory = ram.spread_over(&[0..4 * PAGE, 8 * PAGE..16 * PAGE]).unwrap();
        memory.protect(8 * PAGE..9 * PAGE, Perms::READ | Perms::EXEC).unwrap();
        memory.protect(15 * PAGE..16 * PAGE, Perms::READ).unwrap();
        memory.protect(PAGE..2 * PAGE, Perms::READ | Perms::WRITE).unwrap();
        assert_eq!(pieces(&(0..4 * PAGE), &memory), [(0..4 * PAGE, 0)]);
        let expected = [
            (8 * PAGE..9 * PAGE, KVM_MEM_READONLY),
            (9 * PAGE..15 * PAGE, 0),
            (15 * PAGE..16 * PAGE, KVM_MEM_READONLY),
        ];
        assert_eq!(pieces(&(8 * PAGE..16 * PAGE), &memory), expected);
    }

    #[test]
    fn ranges_are_whole_pages_in_order() {
        assert_eq!(check(&[0..PAGE, 2 * PAGE..4 * PAGE]), Ok(3 * PAGE));
        let overlapping = [PAGE..3 * PAGE, 2 * PAGE..4 * PAGE];
        for bad in [std::slice::from_ref(&(0..1)), std::slice::from_ref(&(0..0)), &overlapping] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
