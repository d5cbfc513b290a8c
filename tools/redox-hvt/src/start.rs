//! The first instructions of the process, before the C library's.
//!
//! A container runtime may start the tender under a system call filter made for solo5-hvt, which
//! answers anything else with SIGSYS. A C library and Rust's runtime make calls at start-up that
//! are not on such a list and that they can do without. So the very first thing is a SIGSYS
//! handler that lets a refused call fail with ENOSYS, as on a kernel that has not got it. Then
//! the C library starts as usual.
//!
//! The entry point is set by `build.rs`. It runs before relocation, so it is position-independent
//! assembly and refers to nothing but itself.

#![allow(unsafe_code)]

use redox_hvt::outside::REFUSED;

/// Offset of `uc_mcontext.gregs[REG_RAX]` in `struct ucontext`.
const UCONTEXT_RAX: usize = 40 + 8 * 13;

const ENOSYS: i32 = 38;

const SA_SIGINFO_RESTORER: u32 = 0x0400_0004;

core::arch::global_asm!(
    ".globl redox_hvt_start",
    "redox_hvt_start:",
    // RDX is the dynamic loader's, RSP points to the arguments: both are the C library's.
    "mov r9, rdx",
    "sub rsp, 40",
    "lea rax, [rip + 2f]",
    "mov [rsp], rax",
    "mov qword ptr [rsp + 8], {flags}",
    "lea rax, [rip + 3f]",
    "mov [rsp + 16], rax",
    "mov qword ptr [rsp + 24], 0",
    "mov edi, {sigsys}",
    "mov rsi, rsp",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, {rt_sigaction}",
    "syscall",
    "add rsp, 40",
    "mov rdx, r9",
    "jmp _start",
    // handler(signal, info, context)
    "2:",
    "mov qword ptr [rdx + {rax}], -{enosys}",
    "lock inc dword ptr [rip + {refused}]",
    "ret",
    "3:",
    "mov eax, {rt_sigreturn}",
    "syscall",
    flags = const SA_SIGINFO_RESTORER,
    sigsys = const libc::SIGSYS,
    rt_sigaction = const libc::SYS_rt_sigaction,
    rt_sigreturn = const libc::SYS_rt_sigreturn,
    rax = const UCONTEXT_RAX,
    enosys = const ENOSYS,
    refused = sym REFUSED,
);
