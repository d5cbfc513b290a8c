//! A system call, and the C way to tell how it went.

use crate::thread;
use core::arch::asm;
use core::ffi::{c_int, c_long};

/// A system call with up to six arguments; negative results are error numbers.
///
/// # Safety
/// As the system call demands of its arguments.
#[expect(clippy::cast_possible_truncation, reason = "x86_64 is a 64-bit target")]
pub unsafe fn raw(number: c_long, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    let result: isize;
    // SAFETY: the arguments are the caller's responsibility; the kernel changes RAX, RCX, R11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// Makes a result -1 and `errno`, where it is an error.
pub fn errno(result: isize) -> isize {
    if (-4095..0).contains(&result) {
        set_errno(c_int::try_from(-result).unwrap_or(libc::EINVAL));
        return -1;
    }
    result
}

/// Sets the calling thread's `errno`.
pub fn set_errno(value: c_int) {
    // SAFETY: the calling thread's own, and nobody holds a reference to it.
    unsafe { *thread::errno_location() = value }
}
