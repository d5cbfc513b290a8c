//! The world switch: VMLOAD, VMRUN, VMSAVE (AMD APM vol. 2 §15.5).
//!
//! The order is the manual's: the global interrupt flag is clear from before the guest's FS, GS
//! and TR are loaded until the host's are back, so that no NMI handler meets the guest's.
//! Interrupts are enabled under it, or a host interrupt would not end the guest's run; host code
//! never sees one, because they are disabled again before STGI.

#![allow(unsafe_code)]

use crate::x86_64::regs::Gprs;
use core::arch::asm;

const fn at(register: usize) -> usize {
    8 * register
}

/// Runs a guest until its next exit. RAX and RSP are the VMCB's.
///
/// Where it is called, so that the compiler keeps what it still needs, and nothing else. RBX and RBP
/// it does not give away.
///
/// # Safety
/// SVM is enabled on this CPU and VM_HSAVE_PA is a page of its own; `vmcb` is a VMCB's
/// host-physical address; VMSAVE has put this CPU's state into `host`; interrupts are off.
#[inline(always)]
pub(super) unsafe fn enter(vmcb: u64, gprs: &mut Gprs, host: u64) {
    // SAFETY: as the caller promises. Every register that the guest changes is named or put back;
    // the host's stack pointer is back after VMRUN.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "push rsi",
            "push rdx",
            "clgi",
            "vmload rax",
            "mov rbx, [rsi + {rbx}]",
            "mov rcx, [rsi + {rcx}]",
            "mov rdx, [rsi + {rdx}]",
            "mov rbp, [rsi + {rbp}]",
            "mov rdi, [rsi + {rdi}]",
            "mov r8,  [rsi + {r8}]",
            "mov r9,  [rsi + {r8} + 8]",
            "mov r10, [rsi + {r8} + 16]",
            "mov r11, [rsi + {r8} + 24]",
            "mov r12, [rsi + {r8} + 32]",
            "mov r13, [rsi + {r8} + 40]",
            "mov r14, [rsi + {r8} + 48]",
            "mov r15, [rsi + {r8} + 56]",
            "mov rsi, [rsi + {rsi}]",
            "sti",
            "vmrun rax",
            "cli",
            "vmsave rax",
            // RAX and RSP are the host's again; every other register is the guest's.
            "pop rax",
            "vmload rax",
            "stgi",
            "pop rax",
            "mov [rax + {rbx}], rbx",
            "mov [rax + {rcx}], rcx",
            "mov [rax + {rdx}], rdx",
            "mov [rax + {rbp}], rbp",
            "mov [rax + {rsi}], rsi",
            "mov [rax + {rdi}], rdi",
            "mov [rax + {r8}], r8",
            "mov [rax + {r8} + 8], r9",
            "mov [rax + {r8} + 16], r10",
            "mov [rax + {r8} + 24], r11",
            "mov [rax + {r8} + 32], r12",
            "mov [rax + {r8} + 40], r13",
            "mov [rax + {r8} + 48], r14",
            "mov [rax + {r8} + 56], r15",
            "pop rbx",
            "pop rbp",
            rbx = const at(Gprs::RBX),
            rcx = const at(Gprs::RCX),
            rdx = const at(Gprs::RDX),
            rbp = const at(Gprs::RBP),
            rsi = const at(Gprs::RSI),
            rdi = const at(Gprs::RDI),
            r8 = const at(8),
            inout("rax") vmcb => _,
            inout("rsi") &raw mut gprs.0 => _,
            inout("rdx") host => _,
            out("rcx") _,
            out("rdi") _,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
        );
    }
}

/// Saves what VMLOAD loads, of this CPU as it is now.
///
/// # Safety
/// SVM is enabled on this CPU; `host` is the host-physical address of a page of its own.
pub(super) unsafe fn save_host(host: u64) {
    // SAFETY: as the caller promises.
    unsafe { asm!("vmsave rax", in("rax") host, options(nostack)) };
}
