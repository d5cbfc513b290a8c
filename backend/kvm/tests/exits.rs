//! What KVM makes of a guest's faults beyond the suite that every backend passes
//! (`tests/conformance.rs`).

#![cfg(target_arch = "x86_64")]

mod guest;

use backend_conformance::code;
use backend_conformance::guest::TEXT;
use guest::{kvm, next, vcpu};
use hypervisor::memory::{Gpa, Gva};
use hypervisor::vcpu::{BackendVcpu, VmEntry, VmExit};

code!(rewrites_text: "nop", "mov dword ptr [0x100ffc], eax", "hlt");
code!(rewrites_text_with_sse: "nop", "movups [0x100f00], xmm0", "hlt");

#[test]
fn a_write_to_text_names_where_and_what() {
    let Some(kvm) = kvm("a_write_to_text_names_where_and_what") else { return };
    let (_vm, mut vcpu) = vcpu(&kvm, rewrites_text());
    let fault = VmExit::MemoryFault { rip: Gva(TEXT + 1), address: Some(Gpa(TEXT + 0xffc)) };
    assert_eq!(next(&mut vcpu), fault);
    assert_eq!(next(&mut vcpu), fault, "a guest that has faulted does not go on");
}

/// KVM's emulator, by which the address is found, does not know every instruction.
#[test]
fn a_write_to_text_by_sse_names_where() {
    let Some(kvm) = kvm("a_write_to_text_by_sse_names_where") else { return };
    let (_vm, mut vcpu) = vcpu(&kvm, rewrites_text_with_sse());
    let exit = next(&mut vcpu);
    assert!(matches!(exit, VmExit::MemoryFault { rip, .. } if rip == Gva(TEXT + 1)), "{exit:x?}");
}

code!(jumps_to_a_device: "mov rbx, 0x200010", "jmp rbx");

#[test]
fn code_that_kvm_cannot_run_is_an_error_with_its_place() {
    let Some(kvm) = kvm("code_that_kvm_cannot_run_is_an_error_with_its_place") else { return };
    let (_vm, mut vcpu) = vcpu(&kvm, jumps_to_a_device());
    let error = vcpu.run(VmEntry::Continue).unwrap_err();
    assert!(error.text.contains("suberror=0x1"), "{error}");
    assert!(error.text.contains("rip=0x200010"), "{error}");
}
