//! Does KVM really run 64-bit code with SSE at hardware speed?
//!
//! Some machines have a `/dev/kvm` that emulates guests: some 600 ns an instruction, no SSE. This
//! runs 800 instructions in the VM that will be used, takes the fastest of some rounds by the
//! guest's own cycle counter, and puts everything back. Where KVM is sound that is two VM entries;
//! where it is not, the first SSE instruction fails, or it ends after half a millisecond.

#![allow(unsafe_code)]

use super::state::set_state;
use crate::error::{errno, refused};
use hypervisor::memory::{Gpa, GuestMemory};
use hypervisor::vcpu::{BackendError, Segment, VcpuState, X86State};
use kvm_ioctls::{VcpuExit, VcpuFd};
use rustix::io::Errno;

/// Pages that the guest borrows: low ones, that every guest uses for the same, so that they cost
/// no page that would not have been touched anyway.
const CODE: u64 = 0x1000;
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PD: u64 = 0x4000;
const END: u64 = 0x5000;

const ROUNDS: u32 = 4;
const ITERATIONS: u32 = 64;
/// Of one iteration.
const INSTRUCTIONS: u64 = 3;
/// A processor needs less than 1 ns, one that is itself emulated (QEMU's TCG) 10 to 50; KVM's
/// software emulation 600.
const LIMIT_NS: u64 = 250;

core::arch::global_asm!(
    ".pushsection .rodata.kvm_probe, \"a\"",
    ".globl kvm_probe_start",
    ".globl kvm_probe_end",
    "kvm_probe_start:",
    "    mov edi, 1",
    "    movd xmm1, edi",
    "    pxor xmm0, xmm0",
    "    mov ebx, -1", // fewest ticks of a round
    "    mov esi, {rounds}",
    "2:  rdtsc",
    "    mov r9d, eax",
    "    mov ecx, {iterations}",
    "3:  paddd xmm0, xmm1",
    "    dec ecx",
    "    jnz 3b",
    "    rdtsc",
    "    sub eax, r9d",
    "    cmp eax, ebx",
    "    cmovb ebx, eax",
    "    dec esi",
    "    jnz 2b",
    "    movd eax, xmm0", // iterations in all
    "    hlt",
    "kvm_probe_end:",
    ".popsection",
    rounds = const ROUNDS,
    iterations = const ITERATIONS,
);

unsafe extern "C" {
    static kvm_probe_start: u8;
    static kvm_probe_end: u8;
}

fn code() -> &'static [u8] {
    let (start, end) = (&raw const kvm_probe_start, &raw const kvm_probe_end);
    // SAFETY: both symbols are in one read-only section, the end after the start (see above).
    unsafe { std::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

/// Whether this host's processor can virtualize at all, by CPUID and without opening `/dev/kvm`:
/// VMX (leaf 1, ECX bit 5) or SVM (leaf 0x8000_0001, ECX bit 2). A KVM on another processor is a
/// software-only one.
///
/// # Errors
/// If it cannot. The text says so, for `-v`.
pub fn host_can_virtualize() -> Result<(), BackendError> {
    let cpuid = core::arch::x86_64::__cpuid;
    let vmx = || cpuid(1).ecx & 1 << 5 != 0;
    // Every 64-bit processor has this leaf: it is where it says that it is one.
    let svm = || cpuid(0x8000_0001).ecx & 1 << 2 != 0;
    if vmx() || svm() {
        return Ok(());
    }
    Err(BackendError::new("the processor has neither VMX nor SVM: KVM here is software-only"))
}

/// Runs the probe on a vCPU that has not run yet. See [`crate::KvmVm::probe`].
pub(crate) fn probe(vcpu: &mut VcpuFd, memory: &GuestMemory, hz: u64) -> Result<(), BackendError> {
    if memory.end().0 < END {
        return Err(BackendError::new(format!(
            "KVM cannot be tried in a VM with less than {END} bytes of memory"
        )));
    }
    fill(memory)?;
    let outcome = run(vcpu, hz);
    wipe(memory)?;
    outcome
}

fn run(vcpu: &mut VcpuFd, hz: u64) -> Result<(), BackendError> {
    set_state(vcpu, &VcpuState::X86(start_state()))?;
    loop {
        match vcpu.run() {
            Ok(VcpuExit::Hlt) => break,
            Ok(_) => return Err(BackendError::new("KVM cannot run 64-bit code with SSE here")),
            // A signal, which is noted, and acted on when the guest is to run.
            Err(error) if errno(&error) == Errno::INTR => {}
            Err(error) => return Err(refused("running 64-bit code with SSE")(error)),
        }
    }
    let regs = vcpu.get_regs().map_err(refused("KVM_GET_REGS"))?;
    judge(regs.rax, regs.rbx, hz)
}

/// `sum` is what the guest counted, `ticks` how long its fastest round took.
fn judge(sum: u64, ticks: u64, hz: u64) -> Result<(), BackendError> {
    if sum != u64::from(ROUNDS * ITERATIONS) {
        return Err(BackendError::new("KVM runs SSE instructions wrongly here"));
    }
    if ticks == 0 {
        return Err(BackendError::new("the guest's cycle counter stands still under KVM here"));
    }
    let instructions = u64::from(ITERATIONS) * INSTRUCTIONS;
    let ns = ticks.saturating_mul(1_000_000_000) / hz.max(1) / instructions;
    if ns > LIMIT_NS {
        return Err(BackendError::new(format!(
            "KVM emulates guests in software here: {ns} ns an instruction"
        )));
    }
    Ok(())
}

fn fill(memory: &GuestMemory) -> Result<(), BackendError> {
    const PRESENT_WRITABLE: u64 = 3;
    const PAGE_SIZE_BIT: u64 = 1 << 7;
    memory.write_bytes(Gpa(CODE), code())?;
    memory.write_obj(Gpa(PML4), &(PDPT | PRESENT_WRITABLE))?;
    memory.write_obj(Gpa(PDPT), &(PD | PRESENT_WRITABLE))?;
    // The first 2 MiB, where they are.
    Ok(memory.write_obj(Gpa(PD), &(PRESENT_WRITABLE | PAGE_SIZE_BIT))?)
}

fn wipe(memory: &GuestMemory) -> Result<(), BackendError> {
    const ZEROS: [u8; 128] = [0; 128];
    for chunk in (0..code().len()).step_by(ZEROS.len()) {
        memory.write_bytes(Gpa(CODE + chunk as u64), &ZEROS)?;
    }
    for table in [PML4, PDPT, PD] {
        memory.write_obj(Gpa(table), &0u64)?;
    }
    Ok(())
}

/// 64-bit mode with SSE and nothing else: no IDT, so an exception is a shutdown.
fn start_state() -> X86State {
    let segment = |selector, attributes| Segment { selector, base: 0, limit: !0, attributes };
    X86State {
        rip: CODE,
        rflags: 2,
        cr0: 0x8001_0023, // PG, WP, NE, MP, PE
        cr3: PML4,
        cr4: 0x620,  // OSXMMEXCPT, OSFXSR, PAE
        efer: 0x500, // LMA, LME
        cs: segment(8, 0xa9b),
        data: segment(16, 0xc93),
        tr: Segment { limit: 0, ..segment(0, 0x8b) },
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{PAGE, Ram};

    const SUM: u64 = (ROUNDS * ITERATIONS) as u64;

    #[test]
    fn speed_decides() {
        let ticks = |ns_per_instruction: u64| ns_per_instruction * 192 * 3;
        assert!(judge(SUM, 70, 3_000_000_000).is_ok());
        assert!(judge(SUM, ticks(50), 3_000_000_000).is_ok());
        let slow = judge(SUM, ticks(600), 3_000_000_000).unwrap_err();
        assert!(slow.text.contains("600 ns"), "{slow}");
        assert!(judge(SUM, u64::from(u32::MAX), 0).is_err());
    }

    #[test]
    fn wrong_results_fail_however_fast() {
        assert!(judge(SUM - 1, 70, 3_000_000_000).is_err());
        assert!(judge(SUM, 0, 3_000_000_000).is_err());
    }

    #[test]
    fn memory_is_zero_afterwards() {
        let ram = Ram::new(END).unwrap();
        let memory = ram.as_guest_memory().unwrap();
        fill(&memory).unwrap();
        let bytes = || {
            let mut bytes = vec![0u8; usize::try_from(END).unwrap()];
            memory.read_bytes(Gpa(0), &mut bytes).unwrap();
            bytes
        };
        assert!(bytes().iter().any(|&b| b != 0));
        wipe(&memory).unwrap();
        assert!(bytes().iter().all(|&b| b == 0));
    }

    #[test]
    fn the_code_is_one_piece_inside_its_page() {
        let page = usize::try_from(PAGE).unwrap();
        assert!((40..page).contains(&code().len()));
        assert_eq!(code().last(), Some(&0xf4), "hlt");
    }
}
