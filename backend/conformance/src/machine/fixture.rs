//! A machine of 2 MiB with one vCPU and a handler for every vector.
//!
//! The handler tells `vector | error code << 8` by port 0x501, then asks port 0x502 how many bytes
//! to add to the RIP that it returns to.

use crate::guest::{self, MEMORY, TEXT, out, same, text, unused};
use crate::{Host, Outcome, code};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use hypervisor::memory::{Gpa, GuestMemory};
use hypervisor::vcpu::machine::{CpuidEntry, MachineBackend, MachineSpec, MachineVm};
use hypervisor::vcpu::{BackendVcpu, BackendVm, VcpuState, VmEntry, VmExit, X86State};

const GDT: u64 = 0x1000;
const IDT: u64 = 0x5000;
const STUBS: u64 = 0x6000;
const HANDLER: u64 = 0x7000;

code!(halts: "hlt");

/// Code that does nothing.
pub(super) fn nothing() -> &'static [u8] {
    halts()
}

code!(handler:
    "push rax",
    "push rdx",
    "mov edx, 0x501",
    "mov eax, [rsp + 24]",
    "shl eax, 8",
    "or eax, [rsp + 16]",
    "out dx, eax",
    "inc edx",
    "in eax, dx",
    "add [rsp + 32], rax",
    "pop rdx",
    "pop rax",
    "add rsp, 16",
    "iretq",
);

/// A machine.
pub(crate) struct Pc<V: BackendVm> {
    pub vcpu: V::Vcpu,
    pub vm: V,
    pub interrupted: fn(),
}

/// Registers for 64-bit code with interrupts' tables.
pub(super) fn state() -> X86State {
    X86State { idt: (IDT, 0xfff), ..guest::state() }
}

/// Vectors whose exceptions have an error code.
fn has_code(vector: u64) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21)
}

/// Page tables, segments, gates and handlers.
pub(super) fn fill(memory: &GuestMemory, code: &[u8]) -> Outcome {
    let put = |at, value: u64| memory.write_obj(Gpa(at), &value).map_err(text);
    for (at, value) in [(0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x83), (0x4008, MEMORY | 0x83)]
    {
        put(at, value)?;
    }
    put(GDT + 8, 0x00af_9b00_0000_ffff)?;
    put(GDT + 16, 0x00cf_9300_0000_ffff)?;
    for vector in 0..256 {
        let stub = STUBS + vector * 16;
        put(IDT + vector * 16, stub & 0xffff | 8 << 16 | 0x8e00 << 32 | (stub >> 16) << 48)?;
        let mut bytes = Vec::new();
        if !has_code(vector) {
            bytes.extend([0x6a, 0]);
        }
        // A byte is sign-extended, a word is not pushed in 64-bit mode: four bytes.
        bytes.push(0x68);
        bytes.extend(u32::try_from(vector).unwrap_or(0).to_le_bytes());
        let end = stub + bytes.len() as u64 + 5;
        bytes.push(0xe9);
        bytes.extend(u32::try_from(HANDLER - end).unwrap_or(0).to_le_bytes());
        memory.write_bytes(Gpa(stub), &bytes).map_err(text)?;
    }
    memory.write_bytes(Gpa(HANDLER), handler()).map_err(text)?;
    memory.write_bytes(Gpa(TEXT), code).map_err(text)
}

/// The backend's CPUID with rows in place of its own or added.
pub(super) fn cpuid<B: MachineBackend>(
    backend: &Host<B>,
    rows: &[CpuidEntry],
) -> Result<Vec<CpuidEntry>, String> {
    let mut all = backend.supported_cpuid().map_err(text)?;
    all.retain(|row| !rows.iter().any(|r| (r.leaf, r.subleaf) == (row.leaf, row.subleaf)));
    // No hypervisors within.
    for row in &mut all {
        match row.leaf {
            1 => row.registers[2] &= !(1 << 5),
            0x8000_0001 => row.registers[2] &= !(1 << 2),
            _ => {}
        }
    }
    all.extend_from_slice(rows);
    Ok(all)
}

impl<V: MachineVm> Pc<V> {
    /// With this code, in 64-bit mode.
    pub fn new<B: MachineBackend<Vm = V>>(backend: &Host<B>, code: &[u8]) -> Result<Self, String> {
        Self::with(backend, code, state(), &[])
    }

    /// With this code, state, and rows of CPUID.
    pub fn with<B: MachineBackend<Vm = V>>(
        backend: &Host<B>,
        code: &[u8],
        state: X86State,
        rows: &[CpuidEntry],
    ) -> Result<Self, String> {
        let vm = empty(backend)?;
        fill(vm.memory(), code)?;
        let vcpu = vcpu(backend, &vm, 0, state, rows)?;
        Ok(Self { vcpu, vm, interrupted: backend.interrupted })
    }

    /// The next exit, with an answer to the last one.
    pub fn answer(&mut self, entry: VmEntry) -> Result<VmExit, String> {
        next::<V>(&mut self.vcpu, self.interrupted, entry)
    }

    /// The next exit has to be this one.
    pub fn expect(&mut self, expected: VmExit) -> Outcome {
        self.expect_after(VmEntry::Continue, expected)
    }

    /// The same, after an answer.
    pub fn expect_after(&mut self, entry: VmEntry, expected: VmExit) -> Outcome {
        let exit = self.answer(entry)?;
        same(&exit, &expected)
    }

    /// The guest shows this value next.
    pub fn shows(&mut self, value: u32) -> Outcome {
        self.expect(out(0x500, 4, value))
    }

    /// The handler of this vector is entered next, and goes back `skip` bytes further on.
    pub fn takes(&mut self, vector: u32, skip: u64) -> Result<VmEntry, String> {
        self.takes_after(VmEntry::Continue, vector, skip)
    }

    /// The same, after an answer.
    pub fn takes_after(
        &mut self,
        entry: VmEntry,
        vector: u32,
        skip: u64,
    ) -> Result<VmEntry, String> {
        self.expect_after(entry, out(0x501, 4, vector))?;
        self.expect(VmExit::Io { port: 0x502, size: 4, write: None })?;
        Ok(VmEntry::Data(skip))
    }
}

/// How guests end here: by asking this port. HLT is not told where the backend has the local
/// interrupt controllers.
pub(super) fn end() -> VmExit {
    VmExit::Io { port: 0xf4, size: 1, write: None }
}

/// The next exit of a vCPU.
pub(super) fn next<V: BackendVm>(
    vcpu: &mut V::Vcpu,
    interrupted: fn(),
    mut entry: VmEntry,
) -> Result<VmExit, String> {
    loop {
        match vcpu.run(entry).map_err(text)? {
            VmExit::Interrupted => interrupted(),
            exit => return Ok(exit),
        }
        entry = VmEntry::Continue;
    }
}

/// Its RAM.
pub(super) const RAM: [Range<u64>; 2] = [0..MEMORY, 0x1_0000_0000..0x1_0010_0000];

/// A machine without vCPU, with nothing in its memory.
pub(super) fn empty<B: MachineBackend>(backend: &Host<B>) -> Result<B::Vm, String> {
    backend.create_machine(&MachineSpec { ram: &RAM, vcpus: 2, tsc_khz: None }).map_err(text)
}

/// A vCPU.
pub(super) fn vcpu<B: MachineBackend>(
    backend: &Host<B>,
    vm: &B::Vm,
    index: u32,
    state: X86State,
    rows: &[CpuidEntry],
) -> Result<<B::Vm as BackendVm>::Vcpu, String> {
    let rows = cpuid(backend, rows)?;
    vm.create_machine_vcpu(index, &rows, VcpuState::X86(state), unused())
        .map_err(|error| format!("{error}"))
}
