//! Ways into a host that runs guests in user mode, and hypercalls in states that its code would not
//! bear itself.

use super::{misdeeds, text};
use crate::Outcome;
use core::arch::{asm, global_asm};
use core::ptr::addr_of_mut;
use unikernel::raw::{Walltime, number};

misdeeds! {
    "vsyscall" => Fault, vsyscall;
    "code-32" => Fault, || far_return(0x23);
    "code-user" => FaultOrHarmless, || far_return(0x33);
    "data-user" => FaultOrHarmless, data_user;
    "icebp" => Fault, icebp;
    "single-step" => Fault, single_step;
    "single-step-calls" => Harmless, single_step_calls;
    "no-stack" => Harmless, || STACKS.iter().try_for_each(|&rsp| no_stack(rsp));
    "fs-gs-nowhere" => Harmless, bases;
    "flags" => Harmless, flags;
    "float-unmasked" => Harmless, float_unmasked;
    "wrpkru" => FaultOrHarmless, wrpkru;
    "string-out" => EndedOrHarmless, string_out;
}

const PORT: u32 = unikernel::raw::HYPERCALL_PIO_BASE + number::WALLTIME;
/// Enough that a rewritten hypercall site is among them.
const ROUNDS: u32 = 10;

static mut TIME: Walltime = Walltime { nsecs: 0 };

fn argument() -> usize {
    addr_of_mut!(TIME).expose_provenance()
}

/// Error unless the last hypercall has told the time.
fn told() -> Outcome {
    let time = addr_of_mut!(TIME);
    // SAFETY: the one thread; the static is this module's.
    let nsecs = unsafe {
        let nsecs = (*time).nsecs;
        (*time).nsecs = 0;
        nsecs
    };
    if nsecs == 0 { Err("the hypercall did nothing") } else { Ok(()) }
}

/// Linux's page of system calls that every process has (arch/x86/entry/vsyscall).
fn vsyscall() -> Outcome {
    // SAFETY: gettimeofday(0, 0) if anything.
    unsafe {
        asm!("call {}", in(reg) 0xffff_ffff_ff60_0000_u64, in("rdi") 0, in("rsi") 0,
             clobber_abi("C"));
    }
    Ok(())
}

// Linux's write(1, RCX, 4) of 32-bit processes, in 32-bit and in 64-bit code.
global_asm!(
    "hostile_code_32:",
    ".byte 0xb8, 4, 0, 0, 0",
    ".byte 0xbb, 1, 0, 0, 0",
    ".byte 0xba, 4, 0, 0, 0",
    ".byte 0xcd, 0x80",
    "ud2",
);

unsafe extern "C" {
    static hostile_code_32: u8;
}

/// Selectors of Linux's own segments of user code.
fn far_return(selector: u64) -> Outcome {
    // SAFETY: writes some of this program on standard output if anything.
    unsafe {
        asm!("push {0}", "push {1}", "retfq", in(reg) selector,
             in(reg) (&raw const hostile_code_32).addr(), in("rcx") text(), options(noreturn));
    }
}

fn data_user() -> Outcome {
    // SAFETY: a flat segment, or #GP.
    unsafe { asm!("mov ds, {0:e}", "mov es, {0:e}", in(reg) 0x2bu32) };
    Ok(())
}

fn icebp() -> Outcome {
    // SAFETY: raises #DB.
    unsafe { asm!(".byte 0xf1") };
    Ok(())
}

fn single_step() -> Outcome {
    // SAFETY: raises #DB after the instruction that follows.
    unsafe { asm!("pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop") };
    Ok(())
}

/// Hypercalls under a handler of #DB that just goes on.
fn single_step_calls() -> Outcome {
    super::exceptions::return_from_all();
    // SAFETY: the flags are what they were when compiled code runs again.
    unsafe {
        asm!("pushfq", "pushfq", "or dword ptr [rsp], 0x100", "popfq", "2:", "mov edx, {port}",
             "out dx, eax", "dec {rounds:e}", "jnz 2b", "popfq",
             rounds = inout(reg) ROUNDS => _, port = const PORT, in("rax") argument(),
             out("rdx") _);
    }
    told()
}

/// Nowhere, not canonical, the guest's own text's place, and the last byte.
const STACKS: [u64; 4] = [0, 1 << 63, 0x10_0000, u64::MAX];

/// Hypercalls without a stack.
fn no_stack(rsp: u64) -> Outcome {
    // SAFETY: nothing is pushed before RSP is what it was.
    unsafe {
        asm!("mov {kept}, rsp", "mov rsp, {rsp}", "2:", "mov edx, {port}", "out dx, eax",
             "dec {rounds:e}", "jnz 2b", "mov rsp, {kept}", kept = out(reg) _, rsp = in(reg) rsp,
             rounds = inout(reg) ROUNDS => _, port = const PORT, in("rax") argument(),
             out("rdx") _);
    }
    told()
}

/// Hypercalls with FS and GS where nothing is.
fn bases() -> Outcome {
    for msr in [0xc000_0100_u32, 0xc000_0101] {
        // SAFETY: the bindings use neither segment.
        unsafe { asm!("wrmsr", in("ecx") msr, in("eax") 0xffff_f123_u32, in("edx") 0x7fff) };
    }
    for _ in 0..ROUNDS {
        unikernel::clock::wall();
    }
    Ok(())
}

/// AC and DF.
const FLAGS: u64 = 1 << 18 | 1 << 10;

/// Hypercalls with flags that no compiled code bears; they are there afterwards.
fn flags() -> Outcome {
    let found: u64;
    // SAFETY: the flags are what they were when compiled code runs again.
    unsafe {
        asm!("pushfq", "mov {found}, [rsp]", "or {found}, {flags}", "push {found}", "popfq", "2:",
             "mov edx, {port}", "out dx, eax", "dec {rounds:e}", "jnz 2b", "pushfq",
             "pop {found}", "popfq", found = out(reg) found, flags = const FLAGS,
             rounds = inout(reg) ROUNDS => _, port = const PORT, in("rax") argument(),
             out("rdx") _);
    }
    told()?;
    if found & FLAGS == FLAGS { Ok(()) } else { Err("a hypercall changed AC or DF") }
}

/// Hypercalls with every exception of x87 and SSE unmasked, and an x87 one pending.
fn float_unmasked() -> Outcome {
    let (mut mxcsr, word): (u32, u16) = (0, 0x0340);
    // SAFETY: the exception that is pending is cleared before a compiled x87 instruction; both
    // control words are the default again.
    unsafe {
        asm!("ldmxcsr [{mxcsr}]", "fldcw [{word}]", "fldz", "fld1", "fdivrp st(1), st", "2:",
             "mov edx, {port}", "out dx, eax", "dec {rounds:e}", "jnz 2b", "fninit",
             "mov dword ptr [{mxcsr}], 0x1f80", "ldmxcsr [{mxcsr}]",
             mxcsr = in(reg) &raw mut mxcsr, word = in(reg) &raw const word,
             rounds = inout(reg) ROUNDS => _, port = const PORT, in("rax") argument(),
             out("rdx") _);
    }
    told()
}

/// Takes all access to all memory from user code, where there are protection keys.
fn wrpkru() -> Outcome {
    // SAFETY: #UD, or no effect on a supervisor, or the end.
    unsafe { asm!("wrpkru", in("eax") u32::MAX, in("ecx") 0, in("edx") 0) };
    Ok(())
}

/// A hypercall's argument from memory.
fn string_out() -> Outcome {
    let word = u32::try_from(argument()).map_err(|_| "an address beyond 4 GiB")?;
    // SAFETY: the argument is this module's.
    unsafe { asm!("outsd", in("edx") PORT, inout("rsi") &raw const word => _) };
    Ok(())
}
