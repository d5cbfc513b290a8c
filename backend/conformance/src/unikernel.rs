//! Guests without interrupts, as unikernels are.

use crate::guest::{DATA, DEVICE, Guest, TEXT, out, same};
use crate::{Case, Host, Outcome, code};
use alloc::format;
use hypervisor::memory::{Gpa, Gva};
use hypervisor::vcpu::{Backend, VmEntry, VmExit};

/// All of them.
pub(crate) fn cases<B: Backend>() -> [Case<B>; 12] {
    [
        ("port accesses of every width", port_widths),
        ("string port accesses, one exit an element", string_ports),
        ("device memory is read and written", device_memory),
        ("device memory as an operand of arithmetic", device_arithmetic),
        ("strings to and from device memory", device_strings),
        ("a write to text names where and what", text_is_protected),
        ("a read of closed memory names where and what", closed_memory),
        ("an exception without handler is a shutdown", dies),
        ("vector registers survive exits", vector_registers),
        ("two guests have registers of their own", two_guests),
        ("all general registers survive exits", general_registers),
        ("memory is zero and stays written", memory),
    ]
}

code!(ports:
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
    "out 0x80, al",
    "in eax, 0x80",
    "hlt",
);

fn port_widths<B: Backend>(backend: &Host<B>) -> Outcome {
    let mut guest = Guest::new(backend, ports())?;
    guest.expect(out(0x500, 4, 0x1122_3344))?;
    guest.expect(out(0x500, 2, 0x3344))?;
    guest.expect(out(0x500, 1, 0x44))?;
    for (size, result) in [(1, 0xffff_ff0d), (2, 0xffff_f00d), (4, 0xdead_f00d)] {
        guest.expect(VmExit::Io { port: 0x500, size, write: None })?;
        guest.expect_after(VmEntry::Data(0x1234_5678_dead_f00d), out(0x500, 4, result))?;
    }
    guest.expect(out(0x80, 1, 0x0d))?;
    guest.expect(VmExit::Io { port: 0x80, size: 4, write: None })?;
    guest.expect_after(VmEntry::Data(0), VmExit::Halt)
}

code!(strings:
    "mov edx, 0x501",
    "mov rsi, rdi",
    "mov ecx, 3",
    "rep outsw",
    "lea rdi, [rdi + 64]",
    "mov ecx, 3",
    "rep insd",
    "mov edx, 0x500",
    "mov eax, edi",
    "out dx, eax",
    "std",
    "mov ecx, 2",
    "rep outsb",
    "rep outsb",
    "hlt",
);

fn string_ports<B: Backend>(backend: &Host<B>) -> Outcome {
    let mut guest = Guest::with(backend, strings(), |memory| {
        memory.write_bytes(Gpa(DATA), &[1, 2, 3, 4, 5, 6, 7]).map_err(crate::guest::text)
    })?;
    for value in [0x0201, 0x0403, 0x0605] {
        guest.expect(out(0x501, 2, value))?;
    }
    let asked = VmExit::Io { port: 0x501, size: 4, write: None };
    guest.expect(asked.clone())?;
    guest.expect_after(VmEntry::Data(7), asked.clone())?;
    guest.expect_after(VmEntry::Data(8), asked)?;
    guest.expect_after(VmEntry::Data(9), out(0x500, 4, 0x11_004c))?;
    same(&guest.memory().read_obj::<[u32; 3]>(Gpa(DATA + 64)), &Ok([7, 8, 9]))?;
    guest.expect(out(0x500, 1, 7))?;
    guest.expect(out(0x500, 1, 6))?;
    guest.expect(VmExit::Halt)
}

code!(devices:
    "mov rbx, 0x200010",
    "mov rax, 0x1122334455667788",
    "mov [rbx], rax",
    "mov [rbx], ax",
    "mov rax, [rbx]",
    "mov [rdi], rax",
    "movzx eax, byte ptr [rbx]",
    "mov [rdi + 8], rax",
    "movsx rax, word ptr [rbx]",
    "mov [rdi + 16], rax",
    "mov dword ptr [rbx + 4], 0x87654321",
    "mov ah, [rbx]",
    "mov [rdi + 24], rax",
    "mov r9, rbx",
    "mov r15d, 77",
    "mov [r9 + r15 * 1 - 77], r15b",
    "hlt",
);

fn mmio(size: u8, write: Option<u64>) -> VmExit {
    VmExit::Mmio { gpa: Gpa(DEVICE), size, write }
}

fn device_memory<B: Backend>(backend: &Host<B>) -> Outcome {
    let mut guest = Guest::new(backend, devices())?;
    guest.expect(mmio(8, Some(0x1122_3344_5566_7788)))?;
    guest.expect(mmio(2, Some(0x7788)))?;
    guest.expect(mmio(8, None))?;
    guest.expect_after(VmEntry::Data(u64::MAX - 1), mmio(1, None))?;
    guest.expect_after(VmEntry::Data(0xa5), mmio(2, None))?;
    let immediate = VmExit::Mmio { gpa: Gpa(DEVICE + 4), size: 4, write: Some(0x8765_4321) };
    guest.expect_after(VmEntry::Data(0x8001), immediate)?;
    guest.expect(mmio(1, None))?;
    guest.expect_after(VmEntry::Data(0x99), mmio(1, Some(77)))?;
    guest.expect(VmExit::Halt)?;
    let found = guest.memory().read_obj::<[u64; 4]>(Gpa(DATA));
    same(&found, &Ok([u64::MAX - 1, 0xa5, 0xffff_ffff_ffff_8001, 0xffff_ffff_ffff_9901]))
}

code!(arithmetic:
    "mov rbx, 0x200010",
    "mov ecx, 0x0f",
    "or dword ptr [rbx], ecx",
    "and byte ptr [rbx], 0xf0",
    "xor eax, eax",
    "add eax, [rbx]",
    "mov edx, 0x500",
    "out dx, eax",
    "cmp dword ptr [rbx], 5",
    "sete al",
    "out dx, eax",
    "test byte ptr [rbx], 0x80",
    "setnz al",
    "out dx, eax",
    "mov eax, 0x12345678",
    "xchg [rbx], eax",
    "out dx, eax",
    "bts dword ptr [rbx], 3",
    "setc al",
    "out dx, eax",
    "inc word ptr [rbx]",
    "hlt",
);

fn device_arithmetic<B: Backend>(backend: &Host<B>) -> Outcome {
    let mut guest = Guest::new(backend, arithmetic())?;
    guest.expect(mmio(4, None))?;
    guest.expect_after(VmEntry::Data(0x1200), mmio(4, Some(0x120f)))?;
    guest.expect(mmio(1, None))?;
    guest.expect_after(VmEntry::Data(0x5a), mmio(1, Some(0x50)))?;
    guest.expect(mmio(4, None))?;
    guest.expect_after(VmEntry::Data(0x1_0000_0042), out(0x500, 4, 0x42))?;
    guest.expect(mmio(4, None))?;
    guest.expect_after(VmEntry::Data(5), out(0x500, 4, 1))?;
    guest.expect(mmio(1, None))?;
    guest.expect_after(VmEntry::Data(0x7f), out(0x500, 4, 0))?;
    guest.expect(mmio(4, None))?;
    guest.expect_after(VmEntry::Data(0xcafe), mmio(4, Some(0x1234_5678)))?;
    guest.expect(out(0x500, 4, 0xcafe))?;
    guest.expect(mmio(4, None))?;
    guest.expect_after(VmEntry::Data(8), mmio(4, Some(8)))?;
    guest.expect(out(0x500, 4, 0xca01))?;
    guest.expect(mmio(2, None))?;
    guest.expect_after(VmEntry::Data(0xffff), mmio(2, Some(0)))?;
    guest.expect(VmExit::Halt)
}

code!(device_copies:
    "mov rsi, rdi",
    "mov rdi, 0x200010",
    "mov ecx, 2",
    "rep movsd",
    "mov eax, 0x55",
    "stosw",
    "mov rsi, 0x200010",
    "mov edi, 0x110100",
    "mov ecx, 2",
    "rep movsb",
    "mov edx, 0x500",
    "mov eax, edi",
    "out dx, eax",
    "hlt",
);

fn device_strings<B: Backend>(backend: &Host<B>) -> Outcome {
    let mut guest = Guest::with(backend, device_copies(), |memory| {
        memory.write_bytes(Gpa(DATA), &[1, 0, 0, 0, 2]).map_err(crate::guest::text)
    })?;
    let at = |offset, size, write| VmExit::Mmio { gpa: Gpa(DEVICE + offset), size, write };
    guest.expect(at(0, 4, Some(1)))?;
    guest.expect(at(4, 4, Some(2)))?;
    guest.expect(at(8, 2, Some(0x55)))?;
    guest.expect(at(0, 1, None))?;
    guest.expect_after(VmEntry::Data(0x61), at(1, 1, None))?;
    guest.expect_after(VmEntry::Data(0x62), out(0x500, 4, 0x11_0102))?;
    guest.expect(VmExit::Halt)?;
    same(&guest.memory().read_obj::<u16>(Gpa(DATA + 0x100)), &Ok(0x6261))
}

code!(rewrites_text: "nop", "mov dword ptr [0x100ffc], eax", "hlt");
code!(pushes_into_text: "nop", "mov esp, 0x102000", "push rax", "hlt");
code!(reads_nothing: "nop", "mov rax, [0x102008]", "hlt");

fn fault<B: Backend>(backend: &Host<B>, code: &[u8], rip: u64, address: u64) -> Outcome {
    let mut guest = Guest::new(backend, code)?;
    let first = guest.answer(VmEntry::Continue)?;
    match first {
        // Not every backend can find out what was touched.
        VmExit::MemoryFault { rip: r, address: a }
            if r == Gva(rip) && a.is_none_or(|a| a == Gpa(address)) => {}
        other => return Err(format!("{other:x?} came, not a memory fault at {address:#x}")),
    }
    guest.expect(first)
}

fn text_is_protected<B: Backend>(backend: &Host<B>) -> Outcome {
    fault(backend, rewrites_text(), TEXT + 1, TEXT + 0xffc)?;
    fault(backend, pushes_into_text(), TEXT + 6, TEXT + 0x1ff8)
}

fn closed_memory<B: Backend>(backend: &Host<B>) -> Outcome {
    fault(backend, reads_nothing(), TEXT + 1, TEXT + 0x2008)
}

code!(undefined: "ud2");

fn dies<B: Backend>(backend: &Host<B>) -> Outcome {
    let mut guest = Guest::new(backend, undefined())?;
    match guest.answer(VmEntry::Continue)? {
        VmExit::Shutdown { .. } => Ok(()),
        other => Err(format!("{other:x?} came, not a shutdown")),
    }
}

code!(vectors:
    "mov edx, 0x500",
    "mov eax, esi",
    "movd xmm7, eax",
    "movd xmm15, edi",
    "2:",
    "movd eax, xmm7",
    "out dx, eax",
    "paddd xmm7, xmm7",
    "movd eax, xmm15",
    "out dx, eax",
    "jmp 2b",
);

fn vector_registers<B: Backend>(backend: &Host<B>) -> Outcome {
    let mut guest = Guest::new(backend, vectors())?;
    let data = u32::try_from(DATA).unwrap_or(0);
    for _ in 0..3 {
        guest.shows(0)?;
        guest.shows(data)?;
    }
    Ok(())
}

code!(counts:
    "mov edx, 0x500",
    "xor ebx, ebx",
    "mov eax, 3",
    "movd xmm0, eax",
    "pxor xmm1, xmm1",
    "2:",
    "paddd xmm1, xmm0",
    "inc ebx",
    "movd eax, xmm1",
    "out dx, eax",
    "mov eax, ebx",
    "out dx, eax",
    "jmp 2b",
);

code!(counts_otherwise:
    "mov edx, 0x500",
    "mov ebx, 1000",
    "mov eax, 5",
    "movd xmm0, eax",
    "pxor xmm1, xmm1",
    "2:",
    "paddd xmm1, xmm0",
    "dec ebx",
    "movd eax, xmm1",
    "out dx, eax",
    "mov eax, ebx",
    "out dx, eax",
    "jmp 2b",
);

fn two_guests<B: Backend>(backend: &Host<B>) -> Outcome {
    let mut first = Guest::new(backend, counts())?;
    let mut second = Guest::new(backend, counts_otherwise())?;
    for round in 1..10 {
        first.shows(3 * round)?;
        second.shows(5 * round)?;
        first.shows(round)?;
        second.shows(1000 - round)?;
    }
    Ok(())
}

code!(all_registers:
    "mov rax, 0x0101010101010101",
    "mov rbx, rax",
    "add rbx, rax",
    "mov rcx, rbx",
    "add rcx, rax",
    "mov rbp, rcx",
    "add rbp, rax",
    "mov rsi, rbp",
    "add rsi, rax",
    "mov rdi, rsi",
    "add rdi, rax",
    "mov r8, rdi",
    "add r8, rax",
    "mov r9, r8",
    "add r9, rax",
    "mov r10, r9",
    "add r10, rax",
    "mov r11, r10",
    "add r11, rax",
    "mov r12, r11",
    "add r12, rax",
    "mov r13, r12",
    "add r13, rax",
    "mov r14, r13",
    "add r14, rax",
    "mov r15, r14",
    "add r15, rax",
    "mov edx, 0x500",
    "out dx, eax",
    // 1 + 2 + … + 14 of them, without RDX, then the stack pointer.
    "add rax, rbx", "add rax, rcx", "add rax, rbp", "add rax, rsi", "add rax, rdi",
    "add rax, r8", "add rax, r9", "add rax, r10", "add rax, r11", "add rax, r12",
    "add rax, r13", "add rax, r14", "add rax, r15",
    "out dx, eax",
    "shr rax, 32",
    "out dx, eax",
    "mov eax, esp",
    "out dx, eax",
    "hlt",
);

fn general_registers<B: Backend>(backend: &Host<B>) -> Outcome {
    let mut guest = Guest::new(backend, all_registers())?;
    guest.shows(0x0101_0101)?;
    guest.shows(0x6969_6969)?;
    guest.shows(0x6969_6969)?;
    guest.shows(0x18_0000)?;
    guest.expect(VmExit::Halt)
}

code!(touches:
    "mov edx, 0x500",
    "xor eax, eax",
    "mov ebx, 0x120000",
    "2:",
    "or eax, [rbx]",
    "mov [rbx], ebx",
    "add ebx, 0x1000",
    "cmp ebx, 0x170000",
    "jb 2b",
    "out dx, eax",
    "mov ebx, 0x120000",
    "3:",
    "add eax, [rbx]",
    "add ebx, 0x1000",
    "cmp ebx, 0x170000",
    "jb 3b",
    "out dx, eax",
    "hlt",
);

fn memory<B: Backend>(backend: &Host<B>) -> Outcome {
    let mut guest = Guest::new(backend, touches())?;
    guest.shows(0)?;
    guest.shows((0x120..0x170).map(|page: u32| page << 12).sum())?;
    guest.expect(VmExit::Halt)?;
    same(&guest.memory().read_obj::<u32>(Gpa(0x15_3000)), &Ok(0x15_3000))
}
