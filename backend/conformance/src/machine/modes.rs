//! Code that is not 64-bit: real mode, protected mode without and with paging.

use super::fixture::{Pc, end, state};
use crate::guest::{DEVICE, out};
use crate::{Case, Host, Outcome, code};
use hypervisor::memory::Gpa;
use hypervisor::vcpu::machine::MachineBackend;
use hypervisor::vcpu::{Segment, VmEntry, VmExit, X86State};

pub(super) fn cases<B: MachineBackend>() -> [Case<B>; 3] {
    [
        ("real mode", real_mode),
        ("protected mode, then paging", protected_mode),
        ("a triple fault is a shutdown", triple_fault),
    ]
}

code!(real:
    ".code16",
    "mov dx, 0x500",
    "mov eax, 0x12345678",
    "out dx, eax",
    "mov bx, 0xfff0",
    "mov al, [bx + 0x20 - 0x10]", // DS:0 again, beyond its 64 KiB
    "mov ecx, 0x4b564dff",
    "rdmsr",
    "mov dx, 0x500",
    "out dx, eax",
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    "mov eax, cr0",
    "out dx, eax",
    "push ax",
    "pop bx",
    "mov eax, 1",
    "cpuid",
    "in al, 0xf4",
    ".code64",
);

fn real_mode<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let segment =
        |selector, base, attributes| Segment { selector, base, limit: 0xffff, attributes };
    let start = X86State {
        rip: 0,
        rsp: 0x8000,
        cr0: 0x10,
        cr3: 0,
        cr4: 0,
        efer: 0,
        cs: segment(0xf000, 0x10_0000, 0x9b),
        data: segment(0, 0, 0x93),
        tr: segment(0, 0, 0x8b),
        ..state()
    };
    let mut pc = Pc::with(backend, real(), start, &[])?;
    pc.expect(out(0x500, 4, 0x1234_5678))?;
    pc.expect(VmExit::ReadMsr { index: 0x4b56_4dff })?;
    pc.expect_after(VmEntry::Data(0xfee0_0900), out(0x500, 4, 0xfee0_0900))?;
    pc.expect(out(0x500, 4, 0x11))?;
    pc.expect(end())
}

code!(protected:
    ".code32",
    "mov edx, 0x500",
    "mov ebx, 0x200010",
    "mov eax, [ebx]",
    "out dx, eax",
    // A page directory at 0x8000: 4 MiB where they are, and 0x400000 at the same place.
    "mov dword ptr [0x8000], 0x83",
    "mov dword ptr [0x8004], 0x83",
    "mov eax, 0x8000",
    "mov cr3, eax",
    "mov eax, cr4",
    "or eax, 0x10",
    "mov cr4, eax",
    "mov eax, cr0",
    "or eax, 0x80000000",
    "mov cr0, eax",
    "mov word ptr [0x600010], 0x77",
    "mov eax, cr4",
    "and eax, 0x10", // KVM shows its own MCE
    "out dx, eax",
    "in al, 0xf4",
    ".code64",
);

fn protected_mode<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let segment = |selector, attributes| Segment { selector, base: 0, limit: !0, attributes };
    let start = X86State {
        cr0: 0x11,
        cr3: 0,
        cr4: 0,
        efer: 0,
        cs: segment(8, 0xc9b),
        data: segment(16, 0xc93),
        tr: Segment { limit: 0x67, ..segment(0, 0x8b) },
        ..state()
    };
    let mut pc = Pc::with(backend, protected(), start, &[])?;
    let mmio = |size, write| VmExit::Mmio { gpa: Gpa(DEVICE), size, write };
    pc.expect(mmio(4, None))?;
    pc.expect_after(VmEntry::Data(0xabcd), out(0x500, 4, 0xabcd))?;
    pc.expect(mmio(2, Some(0x77)))?;
    pc.expect(out(0x500, 4, 0x10))?;
    pc.expect(end())
}

code!(loses_its_table: "push 0", "push 0", "lidt [rsp]", "ud2");

fn triple_fault<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, loses_its_table())?;
    match pc.answer(VmEntry::Continue)? {
        VmExit::Shutdown { .. } => Ok(()),
        other => Err(alloc::format!("{other:x?} came, not a shutdown")),
    }
}
