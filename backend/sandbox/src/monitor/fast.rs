//! The way from a rewritten hypercall site into the monitor and back, and into the guest.
//!
//! An `out` changes no register, so the entrance keeps all of them: general registers, flags, and
//! the vector registers that the monitor's code uses ([`vectors`]). There is one thread, so one
//! static frame is enough.
//!
//! A few nanoseconds count here, beside a system call of a hundred. So flags that matter to the
//! monitor are looked at and not set, and the others put back without POPF.

use super::{Monitor, exit_group, vectors};
use crate::layout::STUB_DATA;
use core::arch::x86_64::__cpuid;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use hypervisor::vcpu::{VmExit, X86State};

/// The monitor's stack on this way.
const STACK: usize = 64 << 10;

#[repr(C, align(64))]
struct Frame {
    vectors: [u8; vectors::BYTES],
    stack: [u8; STACK],
    gpr: [u64; 16],
}

#[repr(transparent)]
struct Shared(UnsafeCell<Frame>);

// SAFETY: only the assembly below uses it, on the one thread of the process.
unsafe impl Sync for Shared {}

static FRAME: Shared = Shared(UnsafeCell::new(Frame {
    vectors: [0; vectors::BYTES],
    stack: [0; STACK],
    gpr: [0; 16],
}));

static FSGSBASE: AtomicBool = AtomicBool::new(false);

/// RFLAGS.TF, DF and AC: a guest's that is set would disturb the monitor, or single-step it.
const DISTURBING: u32 = 1 << 8 | 1 << 10 | 1 << 18;

global_asm!(
    ".globl redox_sandbox_fast",
    ".hidden redox_sandbox_fast",
    "redox_sandbox_fast:",
    "mov [rip + {frame} + {gpr} + 0*8], rax",
    "mov [rip + {frame} + {gpr} + 1*8], rcx",
    "mov [rip + {frame} + {gpr} + 2*8], rdx",
    "mov [rip + {frame} + {gpr} + 3*8], rsp",
    "mov [rip + {frame} + {gpr} + 6*8], rsi",
    "mov [rip + {frame} + {gpr} + 7*8], rdi",
    "mov [rip + {frame} + {gpr} + 8*8], r8",
    "mov [rip + {frame} + {gpr} + 9*8], r9",
    "mov [rip + {frame} + {gpr} + 10*8], r10",
    "mov [rip + {frame} + {gpr} + 11*8], r11",
    // RBX, RBP and R12..R15 survive a call by the System V ABI.
    "lea rsp, [rip + {frame} + {top}]",
    "pushfq",
    "test dword ptr [rsp], {disturbing}",
    "jnz 4f",
    "2:",
    "sub rsp, 8",
    "mov edi, edx",
    "mov esi, eax",
    vectors::save!(),
    "call {hypercall}",
    vectors::restore!(),
    "mov eax, [rsp + 8]",
    "test eax, {disturbing}",
    "jnz 5f",
    // SF, ZF, AF, PF and CF are in the low byte; adding 127 to OF's bit overflows where it is 1.
    "mov ecx, eax",
    "shr ecx, 11",
    "and ecx, 1",
    "mov ah, al",
    "add cl, 127",
    "sahf",
    "3:",
    "mov rax, [rip + {frame} + {gpr} + 0*8]",
    "mov rcx, [rip + {frame} + {gpr} + 1*8]",
    "mov rdx, [rip + {frame} + {gpr} + 2*8]",
    "mov rsi, [rip + {frame} + {gpr} + 6*8]",
    "mov rdi, [rip + {frame} + {gpr} + 7*8]",
    "mov r8, [rip + {frame} + {gpr} + 8*8]",
    "mov r9, [rip + {frame} + {gpr} + 9*8]",
    "mov r10, [rip + {frame} + {gpr} + 10*8]",
    "mov r11, [rip + {frame} + {gpr} + 11*8]",
    "mov rsp, [{data}]",
    "jmp [rip + {frame} + {gpr} + 3*8]",
    "4:",
    "push 2",
    "popfq",
    "jmp 2b",
    "5:",
    "push rax",
    "popfq",
    "jmp 3b",
    frame = sym FRAME,
    gpr = const core::mem::offset_of!(Frame, gpr),
    top = const core::mem::offset_of!(Frame, stack) + STACK,
    disturbing = const DISTURBING,
    mask = sym vectors::MASK,
    hypercall = sym on_hypercall,
    data = const STUB_DATA,
);

unsafe extern "C" {
    fn redox_sandbox_fast();
}

extern "C" fn on_hypercall(port: u32, value: u32) {
    // SAFETY: the guest was running, so no other trap is being handled.
    let Some(monitor) = (unsafe { Monitor::current() }) else { exit_group() };
    let port = u16::try_from(port).unwrap_or(0);
    monitor.answer(VmExit::Io { port, size: 4, write: Some(value) });
}

/// Prepares the fast way; `false` where the CPU lacks what it takes, and sites must not be
/// rewritten. The page at [`STUB_DATA`] must be mapped writable.
pub fn prepare() -> bool {
    let has_sahf = __cpuid(0x8000_0001).ecx & 1 == 1;
    if !has_sahf || !vectors::prepare() {
        return false;
    }
    let entry = redox_sandbox_fast as *const () as u64;
    // SAFETY: the caller has mapped the page, which is the monitor's; see `layout`.
    unsafe { ((STUB_DATA + 8) as *mut u64).write_volatile(entry) };
    true
}

/// Finds out whether FS and GS bases can be set without a system call.
pub fn detect_fsgsbase() {
    const HWCAP2_FSGSBASE: usize = 2;
    let (_, hwcap2) = rustix::param::linux_hwcap();
    FSGSBASE.store(hwcap2 & HWCAP2_FSGSBASE != 0, Ordering::Relaxed);
}

const ARCH_SET_GS: u64 = 0x1001;
const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const ARCH_GET_GS: u64 = 0x1004;

fn arch_prctl(code: u64, argument: u64) {
    // SAFETY: sets or reads a segment base; the monitor keeps nothing in FS or GS.
    unsafe {
        asm!(
            "syscall",
            inout("rax") libc::SYS_arch_prctl => _,
            in("rdi") code,
            in("rsi") argument,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
}

fn get(code: u64) -> u64 {
    let mut base = 0u64;
    arch_prctl(code, (&raw mut base) as u64);
    base
}

/// The guest's FS base.
pub fn fs_base() -> u64 {
    if !FSGSBASE.load(Ordering::Relaxed) {
        return get(ARCH_GET_FS);
    }
    let base;
    // SAFETY: the kernel has announced the instruction.
    unsafe { asm!("rdfsbase {}", out(reg) base, options(nostack, nomem, preserves_flags)) };
    base
}

/// The guest's GS base.
pub fn gs_base() -> u64 {
    if !FSGSBASE.load(Ordering::Relaxed) {
        return get(ARCH_GET_GS);
    }
    let base;
    // SAFETY: as in `fs_base`.
    unsafe { asm!("rdgsbase {}", out(reg) base, options(nostack, nomem, preserves_flags)) };
    base
}

/// Sets the guest's FS and GS bases; both must be canonical.
pub fn set_bases(fs: u64, gs: u64) {
    if FSGSBASE.load(Ordering::Relaxed) {
        // SAFETY: as in `fs_base`; the bases are canonical, so nothing faults.
        unsafe {
            asm!("wrfsbase {}", "wrgsbase {}", in(reg) fs, in(reg) gs,
                options(nostack, nomem, preserves_flags));
        }
    } else {
        arch_prctl(ARCH_SET_FS, fs);
        arch_prctl(ARCH_SET_GS, gs);
    }
}

/// Starts the guest.
///
/// # Safety
/// The monitor must be installed with its signal handlers, and guest memory be in place: nothing
/// of the caller's is ever returned to.
pub unsafe fn enter(state: &X86State) -> ! {
    set_bases(0, 0);
    // SAFETY: as the caller promises. All registers that the guest could read something of the
    // host from are cleared.
    unsafe {
        asm!(
            "mov rsp, {rsp}",
            "push 2",
            "popfq",
            "fninit",
            "push rsi",
            "xor eax, eax", "xor ebx, ebx", "xor ecx, ecx", "xor edx, edx", "xor esi, esi",
            "xor ebp, ebp", "xor r8d, r8d", "xor r9d, r9d", "xor r10d, r10d", "xor r11d, r11d",
            "xor r12d, r12d", "xor r13d, r13d", "xor r14d, r14d", "xor r15d, r15d",
            "pxor xmm0, xmm0", "pxor xmm1, xmm1", "pxor xmm2, xmm2", "pxor xmm3, xmm3",
            "pxor xmm4, xmm4", "pxor xmm5, xmm5", "pxor xmm6, xmm6", "pxor xmm7, xmm7",
            "pxor xmm8, xmm8", "pxor xmm9, xmm9", "pxor xmm10, xmm10", "pxor xmm11, xmm11",
            "pxor xmm12, xmm12", "pxor xmm13, xmm13", "pxor xmm14, xmm14", "pxor xmm15, xmm15",
            "ret",
            rsp = in(reg) state.rsp,
            in("rsi") state.rip,
            in("rdi") state.rdi,
            options(noreturn)
        )
    }
}
