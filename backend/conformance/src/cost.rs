//! Guests that do one thing again and again, to count what each exit costs.

use crate::guest::{DEVICE, Guest, same};
use crate::machine::Pc;
use crate::{Host, Outcome, code};
use alloc::string::String;
use hypervisor::memory::Gpa;
use hypervisor::vcpu::machine::MachineBackend;
use hypervisor::vcpu::{Backend, VmEntry, VmExit};

/// Exits that are counted, after as many that are not.
const ROUNDS: u64 = 1000;

code!(writes_port: "mov edx, 0x500", "2: out dx, eax", "jmp 2b");
code!(reads_port: "mov edx, 0x500", "2: in eax, dx", "jmp 2b");
code!(writes_device: "mov ebx, 0x200010", "2: mov [rbx], eax", "jmp 2b");
code!(reads_device: "mov ebx, 0x200010", "2: mov eax, [rbx]", "jmp 2b");
code!(repeats_call: "2: vmmcall", "jmp 2b");
code!(writes_msr: "mov ecx, 0x4b564dff", "2: wrmsr", "jmp 2b");
code!(repeats_cpuid: "mov esi, 1000", "2: xor eax, eax", "cpuid", "dec esi", "jnz 2b", "hlt");
code!(touches_pages:
    "mov ebx, 0x110000",
    "2: mov [rbx], eax",
    "add ebx, 0x1000",
    "cmp ebx, 0x1f0000",
    "jb 2b",
    "hlt",
);

/// Counts by `now`, a counter of instructions or cycles, and tells what one exit of each kind
/// costs on both sides, the guest's own instructions (one to four) among it.
///
/// # Errors
/// The backend's.
pub fn run<B: MachineBackend>(
    host: &Host<B>,
    now: &dyn Fn() -> u64,
    tell: &mut dyn FnMut(&'static str, u64),
) -> Outcome {
    let io = |write| VmExit::Io { port: 0x500, size: 4, write };
    let mmio = |write| VmExit::Mmio { gpa: Gpa(DEVICE), size: 4, write };
    tell("port write", repeated(host, writes_port(), &io(Some(0)), now)?);
    tell("port read", repeated(host, reads_port(), &io(None), now)?);
    tell("device write", repeated(host, writes_device(), &mmio(Some(0)), now)?);
    tell("device read", repeated(host, reads_device(), &mmio(None), now)?);
    let call = VmExit::Hypercall { number: 0, arguments: [0; 4] };
    tell("hypercall", in_machine(host, repeats_call(), &call, now)?);
    let msr = VmExit::WriteMsr { index: 0x4b56_4dff, value: 0 };
    tell("register write", in_machine(host, writes_msr(), &msr, now)?);
    tell("CPUID", until_halt(host, repeats_cpuid(), 1000, now)?);
    tell("first touch of a page", until_halt(host, touches_pages(), 0xe0, now)?);
    Ok(())
}

/// One exit of a unikernel that does nothing else.
fn repeated<B: Backend>(
    host: &Host<B>,
    code: &[u8],
    exit: &VmExit,
    now: &dyn Fn() -> u64,
) -> Result<u64, String> {
    let mut guest = Guest::new(host, code)?;
    rounds(exit, now, &mut || guest.answer(VmEntry::Data(0)))
}

/// The same of a machine.
fn in_machine<B: MachineBackend>(
    host: &Host<B>,
    code: &[u8],
    exit: &VmExit,
    now: &dyn Fn() -> u64,
) -> Result<u64, String> {
    let mut pc = Pc::new(host, code)?;
    rounds(exit, now, &mut || pc.answer(VmEntry::Data(0)))
}

fn rounds(
    exit: &VmExit,
    now: &dyn Fn() -> u64,
    next: &mut dyn FnMut() -> Result<VmExit, String>,
) -> Result<u64, String> {
    for _ in 0..ROUNDS {
        same(&next()?, exit)?;
    }
    let start = now();
    for _ in 0..ROUNDS {
        next()?;
    }
    Ok((now() - start) / ROUNDS)
}

/// One of `count` exits that the backend answers itself.
fn until_halt<B: Backend>(
    host: &Host<B>,
    code: &[u8],
    count: u64,
    now: &dyn Fn() -> u64,
) -> Result<u64, String> {
    let mut guest = Guest::new(host, code)?;
    let start = now();
    let exit = guest.answer(VmEntry::Continue)?;
    let end = now();
    same(&exit, &VmExit::Halt)?;
    Ok((end - start) / count)
}
