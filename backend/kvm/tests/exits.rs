//! What a guest does becomes the exit that the seam promises.

#![cfg(target_arch = "x86_64")]

mod guest;

use guest::{DATA, DEVICE, TEXT, answer, kvm, next, out, vcpu};
use hypervisor::memory::{Gpa, Gva};
use hypervisor::vcpu::{BackendVcpu, BackendVm, VmEntry, VmExit};

guest!(ports:
    "mov edx, 0x500",
    "mov eax, 0x11223344",
    "out dx, eax",
    "out dx, ax",
    "out dx, al",
    "mov eax, -1",
    "in al, dx",
    "out dx, eax",
    "in ax, dx",
    "out dx, eax",
    "in eax, dx",
    "out dx, eax",
    "hlt",
);

#[test]
fn port_accesses_of_every_width() {
    let Some(kvm) = kvm("port_accesses_of_every_width") else { return };
    let (_vm, mut vcpu) = vcpu(&kvm, ports());
    assert_eq!(next(&mut vcpu), out(0x500, 4, 0x1122_3344));
    assert_eq!(next(&mut vcpu), out(0x500, 2, 0x3344));
    assert_eq!(next(&mut vcpu), out(0x500, 1, 0x44));
    for (size, result) in [(1, 0xffff_ff0d), (2, 0xffff_f00d), (4, 0xdead_f00d)] {
        assert_eq!(next(&mut vcpu), VmExit::Io { port: 0x500, size, write: None });
        assert_eq!(answer(&mut vcpu, VmEntry::Data(0x1234_5678_dead_f00d)), out(0x500, 4, result));
    }
    assert_eq!(next(&mut vcpu), VmExit::Halt);
}

guest!(strings:
    "mov edx, 0x501",
    "mov rsi, rdi",
    "mov ecx, 3",
    "rep outsw",
    "lea rdi, [rdi + 64]",
    "mov ecx, 3",
    "rep insd",
    "hlt",
);

#[test]
fn string_accesses_are_one_exit_per_element() {
    let Some(kvm) = kvm("string_accesses_are_one_exit_per_element") else { return };
    let (vm, mut vcpu) = vcpu(&kvm, strings());
    vm.memory().write_bytes(Gpa(DATA), &[1, 2, 3, 4, 5, 6]).unwrap();
    for value in [0x0201, 0x0403, 0x0605] {
        assert_eq!(next(&mut vcpu), out(0x501, 2, value));
    }
    let asked = VmExit::Io { port: 0x501, size: 4, write: None };
    assert_eq!(next(&mut vcpu), asked);
    assert_eq!(answer(&mut vcpu, VmEntry::Data(7)), asked);
    assert_eq!(answer(&mut vcpu, VmEntry::Data(8)), asked);
    assert_eq!(answer(&mut vcpu, VmEntry::Data(9)), VmExit::Halt);
    assert_eq!(vm.memory().read_obj::<[u32; 3]>(Gpa(DATA + 64)), Ok([7, 8, 9]));
}

guest!(devices:
    "mov rbx, 0x200010",
    "mov rax, 0x1122334455667788",
    "mov [rbx], rax",
    "mov [rbx], ax",
    "mov rax, [rbx]",
    "mov [rdi], rax",
    "movzx eax, byte ptr [rbx]",
    "mov [rdi + 8], rax",
    "hlt",
);

#[test]
fn device_memory_is_read_and_written() {
    let Some(kvm) = kvm("device_memory_is_read_and_written") else { return };
    let (vm, mut vcpu) = vcpu(&kvm, devices());
    let mmio = |size, write| VmExit::Mmio { gpa: Gpa(DEVICE), size, write };
    assert_eq!(next(&mut vcpu), mmio(8, Some(0x1122_3344_5566_7788)));
    assert_eq!(next(&mut vcpu), mmio(2, Some(0x7788)));
    assert_eq!(next(&mut vcpu), mmio(8, None));
    assert_eq!(answer(&mut vcpu, VmEntry::Data(u64::MAX - 1)), mmio(1, None));
    assert_eq!(answer(&mut vcpu, VmEntry::Data(0xa5)), VmExit::Halt);
    assert_eq!(vm.memory().read_obj::<[u64; 2]>(Gpa(DATA)), Ok([u64::MAX - 1, 0xa5]));
}

guest!(rewrites_text: "nop", "mov dword ptr [0x100ffc], eax", "hlt");
guest!(rewrites_text_with_sse: "nop", "movups [0x100f00], xmm0", "hlt");
guest!(pushes_into_text: "nop", "mov esp, 0x102000", "push rax", "hlt");
guest!(reads_nothing: "nop", "mov rax, [0x102008]", "hlt");

fn fault(code: &[u8]) -> Option<(Gva, Option<Gpa>)> {
    let kvm = kvm("memory faults")?;
    let (_vm, mut vcpu) = vcpu(&kvm, code);
    let exit = next(&mut vcpu);
    assert_eq!(next(&mut vcpu), exit, "a guest that has faulted does not go on");
    match exit {
        VmExit::MemoryFault { rip, address } => Some((rip, address)),
        other => panic!("{other:?} is not a memory fault"),
    }
}

#[test]
fn a_write_to_text_names_where_and_what() {
    let Some(found) = fault(rewrites_text()) else { return };
    assert_eq!(found, (Gva(TEXT + 1), Some(Gpa(0x10_0ffc))));
    let Some(found) = fault(pushes_into_text()) else { return };
    assert_eq!(found, (Gva(TEXT + 6), Some(Gpa(0x10_1ff8))));
    let Some(found) = fault(rewrites_text_with_sse()) else { return };
    assert_eq!(found.0, Gva(TEXT + 1));
}

#[test]
fn a_read_of_closed_memory_names_where() {
    let Some(found) = fault(reads_nothing()) else { return };
    // The address is told by newer kernels only: closed memory may be page tables, which the
    // guest keeps while it is looked for.
    assert_eq!(found.0, Gva(TEXT + 1));
    assert!(found.1.is_none_or(|address| address == Gpa(0x10_2008)), "{found:x?}");
}

guest!(dies: "ud2");
guest!(jumps_to_a_device: "mov rbx, 0x200010", "jmp rbx");

#[test]
fn an_exception_without_handler_is_a_shutdown() {
    let Some(kvm) = kvm("an_exception_without_handler_is_a_shutdown") else { return };
    let (_vm, mut vcpu) = vcpu(&kvm, dies());
    assert!(matches!(next(&mut vcpu), VmExit::Shutdown { .. }));
}

#[test]
fn code_that_kvm_cannot_run_is_an_error_with_its_place() {
    let Some(kvm) = kvm("code_that_kvm_cannot_run_is_an_error_with_its_place") else { return };
    let (_vm, mut vcpu) = vcpu(&kvm, jumps_to_a_device());
    let error = vcpu.run(VmEntry::Continue).unwrap_err();
    assert!(error.text.contains("suberror=0x1"), "{error}");
    assert!(error.text.contains("rip=0x200010"), "{error}");
}
