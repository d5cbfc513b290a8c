//! A system call filter around the tender, as a container runtime puts one there (seccomp(2),
//! Linux `Documentation/userspace-api/seccomp_filter.rst`).

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What the container runtime urunc lets a solo5-hvt call.
pub const URUNC: [i64; 43] = [
    libc::SYS_rt_sigaction,
    libc::SYS_ioctl,
    libc::SYS_pread64,
    libc::SYS_mmap,
    libc::SYS_recvmsg,
    libc::SYS_openat,
    libc::SYS_sendto,
    libc::SYS_mprotect,
    libc::SYS_write,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_create1,
    libc::SYS_read,
    libc::SYS_open,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_stat,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_access,
    libc::SYS_execve,
    libc::SYS_timerfd_create,
    libc::SYS_arch_prctl,
    libc::SYS_lseek,
    libc::SYS_personality,
    libc::SYS_socket,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_nanosleep,
    libc::SYS_futex,
    libc::SYS_epoll_pwait,
    libc::SYS_rt_sigreturn,
    libc::SYS_timerfd_settime,
    libc::SYS_pwrite64,
    libc::SYS_newfstatat,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_prlimit64,
    libc::SYS_getrandom,
];

/// Answers every system call that is not in `allowed` with SIGSYS, from just before exec on.
pub fn trap_all_but(command: &mut Command, allowed: &[i64]) {
    let mut program = program(allowed);
    let apply = move || {
        let length = u16::try_from(program.len()).map_err(io::Error::other)?;
        let header = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
        // SAFETY: the program lives during the calls, which change this process only.
        let result = unsafe {
            match libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) {
                0 => {
                    libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const header)
                }
                error => error,
            }
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: two system calls, allowed between fork and exec; nothing is allocated if they
    // succeed.
    unsafe { command.pre_exec(apply) };
}

/// Loads the call's number, compares it with each allowed one.
fn program(allowed: &[i64]) -> Vec<libc::sock_filter> {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let step = |code, jump, k| libc::sock_filter { code, jt: 0, jf: jump, k };
    let mut program = vec![step(LOAD, 0, 0)];
    for &call in allowed {
        program.push(step(JUMP_IF_EQUAL, 1, u32::try_from(call).unwrap_or(u32::MAX)));
        program.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    }
    program.push(step(RETURN, 0, libc::SECCOMP_RET_TRAP));
    program
}
