//! Where a guest broke its memory's permissions.
//!
//! KVM answers an access that the host mapping forbids with `EFAULT`, and names the address only
//! in newer kernels and some cases (`KVM_EXIT_MEMORY_FAULT`). Elsewhere this asks KVM in another
//! way: the memory slots are rebuilt as the permissions say, what must not be written read-only,
//! and the same instruction runs once more. It is then an access to device memory, whose address
//! KVM reports. The guest's registers are put back; it never runs again.

use crate::error::refused;
use crate::machine::Machine;
use crate::run_page::{self, Reason};
use crate::vcpu::KvmVcpu;
use hypervisor::memory::{Gpa, GuestMemory, Gva, Perms};
use hypervisor::vcpu::BackendError;
use kvm_bindings::KVM_MEM_READONLY;
use std::ops::Range;

/// More protected ranges than this, and the address is not looked for.
const MAX_SLOTS: usize = 256;

/// Where the guest was, and what it touched if that can be found out.
pub(crate) fn locate(vcpu: &mut KvmVcpu) -> Result<(Gva, Option<Gpa>), BackendError> {
    let regs = vcpu.fd.get_regs().map_err(refused("KVM_GET_REGS"))?;
    let address = told(vcpu).or_else(|| {
        let found = ask_again(vcpu);
        // For a debugger or a core dump: as the instruction found them. If it fails, they are
        // those after it.
        let _ = vcpu.fd.set_regs(&regs);
        found
    });
    Ok((Gva(regs.rip), address))
}

/// The address in `KVM_EXIT_MEMORY_FAULT`.
fn told(vcpu: &mut KvmVcpu) -> Option<Gpa> {
    match run_page::reason(vcpu.fd.get_kvm_run(), 0) {
        Reason::MemoryFault { gpa } => Some(Gpa(gpa)),
        _ => None,
    }
}

fn ask_again(vcpu: &mut KvmVcpu) -> Option<Gpa> {
    rebuild_slots(&vcpu.machine, &slots(&vcpu.memory)?)?;
    vcpu.fd.run().ok()?;
    match run_page::reason(vcpu.fd.get_kvm_run(), 0) {
        Reason::MmioRead { gpa, .. } | Reason::MmioWrite { gpa, .. } => Some(Gpa(gpa)),
        _ => None,
    }
}

fn rebuild_slots(machine: &Machine, slots: &[(Range<u64>, u32)]) -> Option<()> {
    machine.remove_slot(0).ok()?;
    for (number, (range, flags)) in (0..).zip(slots) {
        machine.set_slot(number, range.clone(), *flags).ok()?;
    }
    Some(())
}

/// The guest's memory as slots with their flags, one per run of equal permissions. `None` where
/// there would be too many.
fn slots(memory: &GuestMemory) -> Option<Vec<(Range<u64>, u32)>> {
    let mut slots = Vec::new();
    let mut at = 0;
    for (range, perms) in memory.protections().take(MAX_SLOTS + 1) {
        slots.push((at..range.start, 0));
        at = range.end;
        match perms {
            p if p.contains(Perms::WRITE) => slots.push((range, 0)),
            p if p.intersects(Perms::READ | Perms::EXEC) => slots.push((range, KVM_MEM_READONLY)),
            // Closed to the host only, such as the page tables: the guest's CPU needs them.
            _ => slots.push((range, 0)),
        }
    }
    slots.push((at..memory.end().0, 0));
    slots.retain(|(range, _)| !range.is_empty());
    (slots.len() <= MAX_SLOTS).then_some(slots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{PAGE, Ram};

    #[test]
    fn slots_follow_the_permissions() {
        let ram = Ram::new(16 * PAGE).unwrap();
        let mut memory = ram.as_guest_memory().unwrap();
        assert_eq!(slots(&memory), Some(vec![(0..16 * PAGE, 0)]));
        memory.protect(2 * PAGE..4 * PAGE, Perms::READ | Perms::EXEC).unwrap();
        memory.protect(4 * PAGE..5 * PAGE, Perms::empty()).unwrap();
        memory.protect(15 * PAGE..16 * PAGE, Perms::READ).unwrap();
        let expected = vec![
            (0..2 * PAGE, 0),
            (2 * PAGE..4 * PAGE, KVM_MEM_READONLY),
            (4 * PAGE..5 * PAGE, 0),
            (5 * PAGE..15 * PAGE, 0),
            (15 * PAGE..16 * PAGE, KVM_MEM_READONLY),
        ];
        assert_eq!(slots(&memory), Some(expected));
    }

    #[test]
    fn too_many_slots_are_not_tried() {
        let ram = Ram::new(1024 * PAGE).unwrap();
        let mut memory = ram.as_guest_memory().unwrap();
        for page in 0..512 {
            memory.protect(2 * page * PAGE..(2 * page + 1) * PAGE, Perms::READ).unwrap();
        }
        assert_eq!(slots(&memory), None);
    }
}
