//! What a debugger does to a guest, through KVM.

#![cfg(target_arch = "x86_64")]

mod guest;

use backend_conformance::code;
use backend_conformance::guest::{DATA, MEMORY, TEXT, out};
use guest::{kvm, vcpu};
use hypervisor::debug::{BreakKind, Breakpoint, DebugVcpu, Registers, Stop, X86Registers};
use hypervisor::memory::{Gpa, Gva};
use hypervisor::vcpu::{BackendVm, VmEntry, VmExit};

code!(counts:
    "inc eax",              // TEXT, 2 bytes
    "inc eax",              // TEXT + 2
    "mov [rdi], eax",       // TEXT + 4, 2 bytes
    "mov edx, 0x500",       // TEXT + 6, 5 bytes
    "out dx, eax",          // TEXT + 11
    "hlt",
);

fn resume(vcpu: &mut impl DebugVcpu, step: bool) -> Stop {
    loop {
        match vcpu.resume(VmEntry::Continue, step).unwrap() {
            Stop::Exit(VmExit::Interrupted) => {}
            stop => return stop,
        }
    }
}

fn registers(vcpu: &impl DebugVcpu) -> X86Registers {
    let Registers::X86(registers) = vcpu.registers().unwrap();
    registers
}

fn at(kind: BreakKind, address: u64) -> Breakpoint {
    Breakpoint { kind, address: Gva(address) }
}

#[test]
fn steps_are_single_instructions() {
    let Some(kvm) = kvm("steps_are_single_instructions") else { return };
    let (_vm, mut vcpu) = vcpu(&kvm, counts());
    for count in 1..=2 {
        assert_eq!(resume(&mut vcpu, true), Stop::Step);
        let now = registers(&vcpu);
        assert_eq!((now.rip, now.general[0]), (TEXT + 2 * count, count));
    }
    assert_eq!(resume(&mut vcpu, false), Stop::Exit(out(0x500, 4, 2)));
    assert_eq!(resume(&mut vcpu, false), Stop::Exit(VmExit::Halt));
}

#[test]
fn breakpoints_of_every_kind() {
    let Some(kvm) = kvm("breakpoints_of_every_kind") else { return };
    let (vm, mut vcpu) = vcpu(&kvm, counts());
    let software = at(BreakKind::Software, TEXT + 2);
    let write = at(BreakKind::Write { len: 4 }, DATA);
    let hardware = at(BreakKind::Hardware, TEXT + 11);
    for breakpoint in [software, software, write, hardware] {
        assert_eq!(vcpu.insert(breakpoint), Ok(true));
    }
    let mut byte = [0];
    vm.memory().read_bytes(Gpa(TEXT + 2), &mut byte).unwrap();
    assert_eq!(byte, [0xf4], "in the protected text");
    vcpu.peek(vm.memory(), Gpa(TEXT + 2), &mut byte).unwrap();
    assert_eq!(byte, [0xff], "and does not show");

    assert_eq!(resume(&mut vcpu, false), Stop::Breakpoint(software));
    assert_eq!(registers(&vcpu).rip, TEXT + 2);
    // One that is not taken away does not stop the guest twice at one visit.
    assert_eq!(resume(&mut vcpu, false), Stop::Breakpoint(write));
    assert_eq!(vcpu.remove(software), Ok(true));
    assert_eq!(vcpu.remove(software), Ok(false));
    assert_eq!(registers(&vcpu).rip, TEXT + 6);
    assert_eq!(resume(&mut vcpu, false), Stop::Breakpoint(hardware));
    assert_eq!(registers(&vcpu).rip, TEXT + 11);
    assert_eq!(resume(&mut vcpu, false), Stop::Exit(out(0x500, 4, 2)), "nor does this one");
    assert_eq!(vcpu.remove(hardware), Ok(true));
    assert_eq!(resume(&mut vcpu, false), Stop::Exit(VmExit::Halt), "the guest's own");
}

/// A hypercall is one instruction, also for KVM, which emulates it.
#[test]
fn a_step_over_an_exit_is_one_step() {
    let Some(kvm) = kvm("a_step_over_an_exit_is_one_step") else { return };
    let (_vm, mut vcpu) = vcpu(&kvm, counts());
    let under = at(BreakKind::Software, TEXT + 11);
    assert_eq!(vcpu.insert(under), Ok(true));
    assert_eq!(resume(&mut vcpu, false), Stop::Breakpoint(under));
    assert_eq!(resume(&mut vcpu, true), Stop::Exit(out(0x500, 4, 2)));
    assert_eq!(resume(&mut vcpu, true), Stop::Step);
    assert_eq!(registers(&vcpu).rip, TEXT + 12);
    assert_eq!(resume(&mut vcpu, false), Stop::Exit(VmExit::Halt), "the guest's own");
}

#[test]
fn what_a_breakpoint_hides_is_what_is_written() {
    let Some(kvm) = kvm("what_a_breakpoint_hides_is_what_is_written") else { return };
    let (vm, mut vcpu) = vcpu(&kvm, counts());
    let software = at(BreakKind::Software, TEXT);
    assert_eq!(vcpu.insert(software), Ok(true));
    vcpu.poke(Gpa(TEXT), &[0x90, 0x90]).unwrap();
    let mut bytes = [0; 3];
    vm.memory().read_bytes(Gpa(TEXT), &mut bytes).unwrap();
    assert_eq!(bytes, [0xf4, 0x90, 0xff]);
    assert_eq!(vcpu.remove(software), Ok(true));
    vm.memory().read_bytes(Gpa(TEXT), &mut bytes).unwrap();
    assert_eq!(bytes, [0x90, 0x90, 0xff]);
    assert_eq!(resume(&mut vcpu, false), Stop::Exit(out(0x500, 4, 1)));
}

#[test]
fn breakpoint_registers_run_out() {
    let Some(kvm) = kvm("breakpoint_registers_run_out") else { return };
    let (_vm, mut vcpu) = vcpu(&kvm, counts());
    for slot in 0..4 {
        assert_eq!(vcpu.insert(at(BreakKind::Hardware, TEXT + slot)), Ok(true));
    }
    assert_eq!(vcpu.insert(at(BreakKind::Hardware, TEXT + 4)), Ok(false));
    assert_eq!(vcpu.remove(at(BreakKind::Hardware, TEXT)), Ok(true));
    assert_eq!(vcpu.insert(at(BreakKind::Write { len: 4 }, DATA + 1)), Ok(false), "misaligned");
    assert_eq!(vcpu.insert(at(BreakKind::Access { len: 8 }, DATA)), Ok(true));
    assert_eq!(vcpu.insert(at(BreakKind::Software, 0x7000_0000_0000)), Ok(false), "unmapped");
}

#[test]
fn registers_are_set_and_addresses_translated() {
    let Some(kvm) = kvm("registers_are_set_and_addresses_translated") else { return };
    let (_vm, mut vcpu) = vcpu(&kvm, counts());
    let mut new = registers(&vcpu);
    new.rip = TEXT + 6;
    new.general[0] = 77;
    (new.fs_base, new.gs_base) = (0x1234, 0x5678);
    new.xmm[3] = [3; 16];
    vcpu.set_registers(&Registers::X86(new)).unwrap();
    assert_eq!(registers(&vcpu), new);
    assert_eq!(resume(&mut vcpu, false), Stop::Exit(out(0x500, 4, 77)));
    assert_eq!(vcpu.translate(Gva(TEXT + 5)), Ok(Some(Gpa(TEXT + 5))));
    assert_eq!(vcpu.translate(Gva(0x7000_0000_0000)), Ok(None));
}

#[test]
fn memory_is_changed_across_pages_and_protection() {
    let Some(kvm) = kvm("memory_is_changed_across_pages_and_protection") else { return };
    let (vm, mut vcpu) = vcpu(&kvm, counts());
    vcpu.poke(Gpa(TEXT + 0xffe), &[1, 2, 3, 4]).unwrap();
    let mut bytes = [0; 4];
    vcpu.peek(vm.memory(), Gpa(TEXT + 0xffe), &mut bytes).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
    assert!(vcpu.poke(Gpa(MEMORY - 1), &[0, 0]).is_err());
    assert!(vcpu.poke(Gpa(u64::MAX), &[0, 0]).is_err());
}
