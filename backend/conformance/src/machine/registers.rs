//! CPUID, model-specific, control, debug and extended registers; hypercalls; read-only memory.

use super::fixture::{Pc, RAM, empty, end, fill, next, state, vcpu};
use crate::guest::{DATA, TEXT, out, same, text};
use crate::{Case, Host, Outcome, code};
use alloc::format;
use hypervisor::memory::{Gpa, Perms};
use hypervisor::vcpu::machine::{CpuidEntry, MachineBackend, MachineSpec};
use hypervisor::vcpu::{BackendVm, VmEntry, VmExit};

pub(super) fn cases<B: MachineBackend>() -> [Case<B>; 11] {
    [
        ("registers of the guest's own never leave it", own_registers),
        ("unknown registers are asked for and refused", unknown_registers),
        ("the extended feature register hides the host", extended_features),
        ("CPUID says what the table says", cpuid),
        ("hypercalls have arguments and an answer", hypercalls),
        ("forbidden bits of control register 4 fault", control_register_4),
        ("breakpoints stop each guest at its own", breakpoints),
        ("vector components are switched on and off", extended_state),
        ("read-only memory tells of writes", read_only),
        ("memory above 4 GiB is there", high_memory),
        ("a frequency that is asked for is had or refused", frequency),
    ]
}

code!(own:
    "mov r8d, 0x500",
    "mov ecx, 0xc0000100", "mov eax, 0x1000", "mov edx, 0x12", "wrmsr",
    "mov ecx, 0xc0000101", "mov eax, 0x2000", "mov edx, 0", "wrmsr",
    "mov ecx, 0xc0000082", "mov eax, 0x3000", "mov edx, 0", "wrmsr",
    "mov ecx, 0x277", "mov eax, 0x00070406", "mov edx, 0x00070406", "wrmsr",
    "2:",
    "mov ecx, 0xc0000100", "rdmsr", "add eax, edx", "mov edx, r8d", "out dx, eax",
    "swapgs",
    "mov ecx, 0xc0000102", "rdmsr", "mov edx, r8d", "out dx, eax",
    "swapgs",
    "mov ecx, 0xc0000082", "rdmsr", "mov edx, r8d", "out dx, eax",
    "mov ecx, 0x277", "rdmsr", "add eax, edx", "mov edx, r8d", "out dx, eax",
    "jmp 2b",
);

fn own_registers<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, own())?;
    for _ in 0..2 {
        for value in [0x1012, 0x2000, 0x3000, 0x000e_080c] {
            pc.shows(value)?;
        }
    }
    Ok(())
}

code!(unknown:
    "mov ecx, 0x4b564dff", "rdmsr", "add eax, edx", "mov edx, 0x500", "out dx, eax",
    "mov ecx, 0x4b564dff", "rdmsr",
    "mov eax, 5", "mov edx, 6", "wrmsr",
    "wrmsr",
    "in al, 0xf4",
);

fn unknown_registers<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    const INDEX: u32 = 0x4b56_4dff;
    let mut pc = Pc::new(backend, unknown())?;
    pc.expect(VmExit::ReadMsr { index: INDEX })?;
    pc.expect_after(VmEntry::Data(0x1_0000_0041), out(0x500, 4, 0x42))?;
    pc.expect(VmExit::ReadMsr { index: INDEX })?;
    let go = pc.takes_after(VmEntry::Refuse, 13, 2)?;
    let write = VmExit::WriteMsr { index: INDEX, value: 0x6_0000_0005 };
    pc.expect_after(go, write.clone())?;
    pc.expect(write)?;
    let go = pc.takes_after(VmEntry::Refuse, 13, 2)?;
    pc.expect_after(go, end())
}

code!(features:
    "mov ecx, 0xc0000080", "rdmsr", "mov r9d, eax", "mov edx, 0x500", "out dx, eax",
    "or eax, 0x1000", "xor edx, edx", "wrmsr",
    "mov eax, r9d", "or eax, 1", "xor edx, edx", "wrmsr",
    "rdmsr", "mov edx, 0x500", "out dx, eax",
    "in al, 0xf4",
);

fn extended_features<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, features())?;
    pc.shows(0x500)?;
    let go = pc.takes(13, 2)?;
    pc.expect_after(go, out(0x500, 4, 0x501))?;
    pc.expect(end())
}

code!(asks_cpuid:
    "mov r8d, 0x500",
    "mov eax, 0x40000077", "cpuid",
    "mov r9d, edx",
    "mov edx, r8d", "out dx, eax", "mov eax, ebx", "out dx, eax", "mov eax, ecx", "out dx, eax",
    "mov eax, r9d", "out dx, eax",
    "mov eax, 1", "cpuid", "shr ecx, 27", "mov eax, ecx", "and eax, 1", "mov edx, r8d", "out dx, eax",
    // CR4.OSXSAVE is reserved where there is no XSAVE (leaf 1, ECX bit 26).
    "mov eax, 1", "cpuid", "bt ecx, 26", "jnc 2f",
    "mov rax, cr4", "bts rax, 18", "mov cr4, rax",
    "2: mov eax, 1", "cpuid", "shr ecx, 27", "mov eax, ecx", "and eax, 1", "mov edx, r8d", "out dx, eax",
    "in al, 0xf4",
);

fn cpuid<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let row = CpuidEntry { leaf: 0x4000_0077, subleaf: None, registers: [1, 2, 3, 4] };
    let first = CpuidEntry { leaf: 0x4000_0000, subleaf: None, registers: [0x4000_0077, 0, 0, 0] };
    let mut pc = Pc::with(backend, asks_cpuid(), state(), &[first, row])?;
    for value in 1..=4 {
        pc.shows(value)?;
    }
    pc.shows(0)?;
    let rows = backend.supported_cpuid().map_err(|e| e.text)?;
    let features = rows.iter().find(|row| row.leaf == 1).map_or(0, |row| row.registers[2]);
    pc.shows(features >> 26 & 1)?;
    pc.expect(end())
}

code!(calls:
    "mov rax, 0x123456789", "mov ebx, 2", "mov ecx, 3", "mov edx, 4", "mov esi, 5",
    "vmmcall",
    "mov edx, 0x500", "out dx, eax",
    "in al, 0xf4",
);

fn hypercalls<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, calls())?;
    // KVM answers its own calls itself, and does not know this one.
    match pc.answer(VmEntry::Continue)? {
        VmExit::Hypercall { number, arguments } => {
            same(&(number, arguments), &(0x1_2345_6789, [2, 3, 4, 5]))?;
            pc.expect_after(VmEntry::Data(0x77), out(0x500, 4, 0x77))?;
        }
        exit => same(&exit, &out(0x500, 4, (-1000i32).cast_unsigned()))?,
    }
    pc.expect(end())
}

code!(sets_cr4:
    "mov rax, cr4", "bts rax, 13", "mov cr4, rax",
    "mov rax, cr4", "btr rax, 5", "mov cr4, rax",
    "mov rax, cr4", "bts rax, 7", "mov cr4, rax",
    "mov rax, cr4", "and eax, 0x7a0", "mov edx, 0x500", "out dx, eax",
    "in al, 0xf4",
);

fn control_register_4<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, sets_cr4())?;
    let go = pc.takes(13, 3)?;
    let go = pc.takes_after(go, 13, 3)?;
    pc.expect_after(go, out(0x500, 4, 0x6a0))?;
    pc.expect(end())
}

code!(hosts_instructions:
    "xor eax, eax",
    "vmrun rax",
    "vmload rax",
    "vmsave rax",
    "clgi",
    "rsm",
    "wbinvd",
    "in al, 0xf4",
);

/// Not for KVM in QEMU's emulation, which does not come back from it.
pub(super) fn no_instructions<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, hosts_instructions())?;
    let mut go = VmEntry::Continue;
    for length in [3, 3, 3, 3, 2] {
        go = pc.takes_after(go, 6, length)?;
    }
    pc.expect_after(go, end())
}

code!(breaks:
    "lea rax, [rip + 3f]", "mov dr0, rax",
    "mov eax, 0x401", "mov dr7, rax",
    "mov edx, 0x500",
    "mov rax, dr0", "out dx, eax",
    "3: nop",
    "mov rax, dr6", "out dx, eax",
    "xor eax, eax", "mov dr6, rax", "mov dr7, rax",
    "in al, 0xf4",
);

fn breakpoints<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut first = Pc::new(backend, breaks())?;
    let mut second = Pc::new(backend, crate::machine::registers::shows_dr())?;
    let place = u32::try_from(TEXT).unwrap_or(0) + 0x1b;
    let VmExit::Io { write: Some(at), .. } = first.answer(VmEntry::Continue)? else {
        return Err("no write".into());
    };
    second.shows(0)?;
    second.shows(0x11)?;
    let go = first.takes(1, 1)?;
    second.shows(0x11)?;
    first.expect_after(go, out(0x500, 4, 0xffff_0ff1))?;
    first.expect(end())?;
    same(&at, &place)
}

code!(shows_dr:
    "mov edx, 0x500",
    "mov rax, dr0", "out dx, eax",
    "mov eax, 0x11", "mov dr0, rax",
    "2: mov rax, dr0", "out dx, eax", "jmp 2b",
);

code!(uses_avx:
    "mov rax, cr4", "bts rax, 18", "mov cr4, rax",
    "xor ecx, ecx", "xor edx, edx", "mov eax, 2", "xsetbv",
    "xor edx, edx", "mov eax, 7", "xsetbv",
    "mov ecx, 0", "xgetbv", "mov edx, 0x500", "out dx, eax",
    "vpcmpeqd ymm1, ymm1, ymm1",
    "vextracti128 xmm2, ymm1, 1", "vmovd eax, xmm2", "out dx, eax",
    "vextracti128 xmm2, ymm1, 1", "vmovd eax, xmm2", "out dx, eax",
    "in al, 0xf4",
);

fn extended_state<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let supported = backend.supported_cpuid().map_err(text)?;
    let avx = |row: &CpuidEntry| row.leaf == 7 && row.registers[1] & 1 << 5 != 0;
    if !supported.iter().any(avx) {
        return Ok(());
    }
    let mut pc = Pc::new(backend, uses_avx())?;
    let mut other = Pc::new(backend, uses_avx())?;
    for pc in [&mut pc, &mut other] {
        let go = pc.takes(13, 3)?;
        pc.expect_after(go, out(0x500, 4, 7))?;
    }
    for _ in 0..2 {
        pc.shows(u32::MAX)?;
        other.shows(u32::MAX)?;
    }
    pc.expect(end())
}

code!(writes_rom:
    "mov ebx, 0x140000",
    "mov edx, 0x500",
    "mov eax, [rbx]", "out dx, eax",
    "mov dword ptr [rbx + 8], 5",
    "mov eax, [rbx + 8]", "out dx, eax",
    "mov ecx, 0x10", "or [rbx], ecx",
    "in al, 0xf4",
);

fn read_only<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    const ROM: u64 = 0x14_0000;
    let mut vm = empty(backend)?;
    fill(vm.memory(), writes_rom())?;
    vm.memory().write_obj(Gpa(ROM), &7u32).map_err(text)?;
    vm.protect(ROM..ROM + 0x1000, Perms::READ | Perms::EXEC).map_err(text)?;
    let mut cpu = vcpu(backend, &vm, 0, state(), &[])?;
    let mut expect = |exit: VmExit| {
        same(&next::<B::Vm>(&mut cpu, backend.interrupted, VmEntry::Continue)?, &exit)
    };
    expect(out(0x500, 4, 7))?;
    expect(VmExit::Mmio { gpa: Gpa(ROM + 8), size: 4, write: Some(5) })?;
    expect(out(0x500, 4, 0))?;
    expect(VmExit::Mmio { gpa: Gpa(ROM), size: 4, write: Some(0x17) })?;
    expect(end())
}

code!(takes_turns:
    "mov edx, 0x500",
    "2: lock inc dword ptr [rdi]",
    "mov eax, [rdi]",
    "out dx, eax",
    "jmp 2b",
);

/// A backend with the local interrupt controllers holds the second one until its start-up message.
pub(super) fn two_vcpus<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let vm = empty(backend)?;
    fill(vm.memory(), takes_turns())?;
    let mut first = vcpu(backend, &vm, 0, state(), &[])?;
    let mut second = vcpu(backend, &vm, 1, state(), &[])?;
    for round in 0..5 {
        for (cpu, value) in [(&mut first, 2 * round + 1), (&mut second, 2 * round + 2)] {
            same(
                &next::<B::Vm>(cpu, backend.interrupted, VmEntry::Continue)?,
                &out(0x500, 4, value),
            )?;
        }
    }
    same(&vm.memory().read_obj::<u32>(Gpa(DATA)), &Ok(10))
}

code!(reaches_high:
    "mov edx, 0x500",
    // The third page-directory pointer: 1 GiB at 4 GiB, where 2 GiB would be.
    "mov dword ptr [0x3010], 0x83", "mov dword ptr [0x3014], 1",
    "mov ebx, 0x80000000",
    "mov eax, [rbx]", "out dx, eax",
    "mov dword ptr [rbx + 0xfff00], 0x1234",
    "mov eax, [rbx + 0xfff00]", "out dx, eax",
    "mov eax, [rbx + 0x100000]",
    "in al, 0xf4",
);

fn high_memory<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let mut pc = Pc::new(backend, reaches_high())?;
    pc.shows(0)?;
    pc.shows(0x1234)?;
    same(&pc.vm.memory().read_obj::<u32>(Gpa(0x1_000f_ff00)), &Ok(0x1234))?;
    pc.expect(VmExit::Mmio { gpa: Gpa(0x1_0010_0000), size: 4, write: None })?;
    pc.expect_after(VmEntry::Data(0), end())
}

/// Nearly the host's is the host's; of others either the backend says that it scales, or why not.
fn frequency<B: MachineBackend>(backend: &Host<B>) -> Outcome {
    let with = |tsc_khz| {
        let vm = backend.create_machine(&MachineSpec { ram: &RAM, vcpus: 1, tsc_khz })?;
        vm.cycle_frequency()
    };
    let host = with(None).map_err(text)?;
    let khz = u32::try_from(host / 1000).map_err(text)?;
    for near in [khz, khz - khz / 5000, khz + khz / 5000] {
        same(&with(Some(near)).map_err(text)?, &host)?;
    }
    for other in [khz / 2, khz * 2] {
        let cannot =
            format!("`tsc_khz` of {other} cannot be had: the host's TSC runs at {khz} kHz");
        match with(Some(other)) {
            Ok(hz) => same(&hz, &(u64::from(other) * 1000))?,
            Err(error) if error.text.starts_with(&cannot) => {}
            Err(error) => return Err(error.text),
        }
    }
    Ok(())
}
