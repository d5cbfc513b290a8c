//! Instructions: system calls of the host, privileged ones, and those that raise exceptions.

use super::{misdeeds, text};
use crate::Outcome;
use core::arch::asm;

misdeeds! {
    "syscall" => Fault, syscall;
    "int80" => Fault, int80;
    "sysenter" => Fault, sysenter;
    "div0" => Fault, div0;
    "ud2" => Fault, ud2;
    "int3" => Fault, int3;
    "int-other" => Fault, int_other;
    "hlt" => Ended, hlt;
    "cli" => Harmless, cli;
    "spin" => RunsOn, spin;
    "rdmsr" => Fault, rdmsr;
    "wrmsr" => Fault, wrmsr;
    "cr-write" => Fault, cr_write;
    "wp-off" => Fault, wp_off;
    "load-segment" => Fault, load_segment;
    "vmcall" => FaultOrHarmless, vmcall;
}

/// What appears on the tender's output if a system call of the host goes through.
static LEAK: [u8; 7] = *b"LEAKED\n";

/// Linux's `write(1, LEAK)`.
fn syscall() -> Outcome {
    // SAFETY: reads LEAK if anything.
    unsafe {
        asm!("syscall", inout("rax") 1u64 => _, in("rdi") 1, in("rsi") LEAK.as_ptr(),
             in("rdx") LEAK.len(), out("rcx") _, out("r11") _);
    }
    Ok(())
}

/// The same by the 32-bit entry.
fn int80() -> Outcome {
    // SAFETY: reads LEAK if anything; rbx is kept by hand, the compiler reserves it.
    unsafe {
        asm!("push rbx", "mov ebx, 1", "int 0x80", "pop rbx", inout("rax") 4u64 => _,
             in("rcx") LEAK.as_ptr(), in("rdx") LEAK.len());
    }
    Ok(())
}

fn sysenter() -> Outcome {
    // SAFETY: reads LEAK if anything.
    unsafe {
        asm!("push rbx", "mov ebx, 1", "sysenter", "pop rbx", inout("rax") 4u64 => _,
             in("rcx") LEAK.as_ptr(), in("rdx") LEAK.len());
    }
    Ok(())
}

fn div0() -> Outcome {
    // SAFETY: raises #DE.
    unsafe { asm!("div ecx", inout("eax") 1 => _, inout("edx") 0 => _, in("ecx") 0) };
    Ok(())
}

fn ud2() -> Outcome {
    // SAFETY: raises #UD.
    unsafe { asm!("ud2") };
    Ok(())
}

fn int3() -> Outcome {
    // SAFETY: raises #BP.
    unsafe { asm!("int3") };
    Ok(())
}

/// A vector beyond the IDT's limit.
fn int_other() -> Outcome {
    // SAFETY: raises #GP.
    unsafe { asm!("int 0x42") };
    Ok(())
}

/// With interrupts off, nothing ever wakes it.
fn hlt() -> Outcome {
    // SAFETY: stops the CPU.
    unsafe { asm!("hlt") };
    Ok(())
}

fn cli() -> Outcome {
    // SAFETY: interrupts are off already.
    unsafe { asm!("cli") };
    Ok(())
}

fn spin() -> Outcome {
    loop {
        core::hint::spin_loop();
    }
}

/// A number that no CPU has.
const NO_MSR: u32 = 0x4bad_0bad;

fn rdmsr() -> Outcome {
    // SAFETY: raises #GP.
    unsafe { asm!("rdmsr", in("ecx") NO_MSR, out("eax") _, out("edx") _) };
    Ok(())
}

fn wrmsr() -> Outcome {
    // SAFETY: raises #GP.
    unsafe { asm!("wrmsr", in("ecx") NO_MSR, in("eax") 0, in("edx") 0) };
    Ok(())
}

/// Reserved bits of CR4.
fn cr_write() -> Outcome {
    // SAFETY: raises #GP.
    unsafe { asm!("mov cr4, {}", in(reg) u64::MAX) };
    Ok(())
}

/// With CR0.WP off the guest's own tables let it write its text; the host's must not.
fn wp_off() -> Outcome {
    // SAFETY: none: that is the misdeed; the byte keeps its value.
    unsafe {
        asm!("mov {0}, cr0", "and {0}, ~0x10000", "mov cr0, {0}", "lock or byte ptr [{1}], 0",
             out(reg) _, in(reg) text());
    }
    Ok(())
}

/// A selector beyond the GDT's limit.
fn load_segment() -> Outcome {
    // SAFETY: raises #GP.
    unsafe { asm!("mov ds, {:e}", in(reg) 0x1230u32) };
    Ok(())
}

/// A hypercall of another hypervisor: KVM answers both vendors' forms.
fn vmcall() -> Outcome {
    // SAFETY: an unknown number; KVM puts an error into rax.
    unsafe { asm!("vmcall", inout("rax") 0xffff_u64 => _, in("rcx") 0, in("rdx") 0) };
    Ok(())
}
