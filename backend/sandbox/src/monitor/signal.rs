//! Traps as signals: the way in for everything that has not been rewritten.
//!
//! Sources: Linux `arch/x86/include/uapi/asm/sigcontext.h`, signal(7), sigaltstack(2),
//! seccomp(2) on SECCOMP_RET_TRAP.

use super::trap::Trap;
use super::{Monitor, exit_group};
use crate::emulate::Regs;
use core::arch::global_asm;
use libc::{
    REG_CR2, REG_CSGSFS, REG_EFL, REG_ERR, REG_RIP, REG_TRAPNO, SIGBUS, SIGFPE, SIGILL, SIGSEGV,
    SIGSYS, SIGTRAP, c_int, c_void, greg_t, siginfo_t, ucontext_t,
};
use rustix::io::Errno;

/// Signals that a trap can become.
const TRAPS: [c_int; 6] = [SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP, SIGSYS];

/// The handler's stack: the kernel's frame with all of AVX-512 and AMX, and the handler itself.
const STACK: usize = 64 << 10;

#[repr(C, align(64))]
struct Stack(core::cell::UnsafeCell<[u8; STACK]>);

// SAFETY: used by the kernel and the handler only, one at a time.
unsafe impl Sync for Stack {}

static SIGNAL_STACK: Stack = Stack(core::cell::UnsafeCell::new([0; STACK]));

/// `struct sigaction` as the kernel has it on x86_64.
#[repr(C)]
struct KernelSigaction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

const SA_RESTORER: u64 = 0x0400_0000;

// The first instructions clear DF, AC and TF, which are the guest's. The restorer is our own, so
// that rt_sigreturn comes from the monitor's code whatever C library there is.
global_asm!(
    ".globl redox_sandbox_signal",
    ".hidden redox_sandbox_signal",
    "redox_sandbox_signal:",
    "push 2",
    "popfq",
    "jmp {handler}",
    ".globl redox_sandbox_restorer",
    ".hidden redox_sandbox_restorer",
    "redox_sandbox_restorer:",
    "mov eax, {rt_sigreturn}",
    "syscall",
    "ud2",
    handler = sym on_signal,
    rt_sigreturn = const libc::SYS_rt_sigreturn,
);

unsafe extern "C" {
    fn redox_sandbox_signal();
    fn redox_sandbox_restorer();
}

/// Installs the handlers on a stack of their own. All signals stay blocked in a handler.
///
/// # Errors
/// If the kernel refuses.
pub fn install() -> Result<(), Errno> {
    let stack =
        libc::stack_t { ss_sp: SIGNAL_STACK.0.get().cast::<c_void>(), ss_flags: 0, ss_size: STACK };
    // SAFETY: the stack is a static that nothing else uses.
    check(unsafe { libc::syscall(libc::SYS_sigaltstack, &raw const stack, 0) })?;
    let action = KernelSigaction {
        handler: redox_sandbox_signal as *const () as usize,
        flags: u64::from((libc::SA_SIGINFO | libc::SA_ONSTACK).cast_unsigned()) | SA_RESTORER,
        restorer: redox_sandbox_restorer as *const () as usize,
        mask: u64::MAX,
    };
    for signal in TRAPS {
        // SAFETY: the structure is the kernel's, and the handler has its signature.
        check(unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, 0, size_of::<u64>())
        })?;
    }
    Ok(())
}

fn check(result: i64) -> Result<(), Errno> {
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

/// Where `gregs` has the general registers, in encoding order (`enum` of `sys/ucontext.h`).
const GREGS: [c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// User code segment of a 64-bit process.
const USER_CS: u64 = 0x33;

extern "C" fn on_signal(signal: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a ucontext_t that is ours until we return.
    let gregs = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    // SAFETY: signals are blocked here, and a trap in the monitor itself does not get past
    // `Monitor::trap` (its RIP is not guest code) or kills the process (a blocked signal).
    let Some(monitor) = (unsafe { Monitor::current() }) else { exit_group() };
    let mut regs = load(gregs);
    if gregs[index(REG_CSGSFS)].cast_unsigned() & 0xffff != USER_CS {
        monitor.left_long_mode(regs.rip);
    }
    monitor.trap(trap(signal, gregs), &mut regs);
    store(gregs, &regs);
}

fn index(register: c_int) -> usize {
    usize::try_from(register).unwrap_or(0)
}

fn trap(signal: c_int, gregs: &[greg_t]) -> Trap {
    if signal == SIGSYS {
        return Trap::SystemCall;
    }
    Trap::Exception {
        number: u8::try_from(gregs[index(REG_TRAPNO)]).unwrap_or(13),
        error: u32::try_from(gregs[index(REG_ERR)]).unwrap_or(0),
        address: gregs[index(REG_CR2)].cast_unsigned(),
    }
}

fn load(gregs: &[greg_t]) -> Regs {
    Regs {
        gpr: GREGS.map(|register| gregs[index(register)].cast_unsigned()),
        rip: gregs[index(REG_RIP)].cast_unsigned(),
        rflags: gregs[index(REG_EFL)].cast_unsigned(),
        fs_base: super::fast::fs_base(),
        gs_base: super::fast::gs_base(),
    }
}

fn store(gregs: &mut [greg_t], regs: &Regs) {
    for (register, value) in GREGS.iter().zip(regs.gpr) {
        gregs[index(*register)] = value.cast_signed();
    }
    gregs[index(REG_RIP)] = regs.rip.cast_signed();
    gregs[index(REG_EFL)] = regs.rflags.cast_signed();
    super::fast::set_bases(regs.fs_base, regs.gs_base);
}
