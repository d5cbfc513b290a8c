//! The system call filter of a guest's process: the boundary around everything in it.
//!
//! A call goes through only from the monitor's code (the program's text, and the vDSO for a clock
//! that it cannot read alone), only if it is listed, only with the descriptors that are listed.
//! From anywhere else it is a SIGSYS, which the monitor turns into the guest's own #UD; a listed
//! place with an unlisted call, which takes a guest that jumps into the monitor, ends the process.

#![allow(unsafe_code)]

use crate::SandboxConfig;
use crate::report::Report;
use core::ops::Range;
use host_linux::confine::Rule;
use host_linux::confine::filter::{Program, compile};
use hypervisor::vcpu::BackendError;
use rustix::fd::RawFd;

/// Bytes of the vDSO's code, at most.
const VDSO: u64 = 0x4000;

unsafe extern "C" {
    static __executable_start: u8;
    static etext: u8;
}

/// What the monitor itself calls, whatever the guest's devices are.
fn own_rules(memory: RawFd, report: &Report) -> Vec<Rule> {
    const FUTEX_WAIT: u64 = 0;
    let gate = report.gate_address();
    let clock = |id: i32| {
        // Others tell how busy any process of the host is.
        let id = u64::from(id.cast_unsigned());
        Rule::with(libc::SYS_clock_gettime, 0, id, "a clock that the vDSO cannot read")
    };
    vec![
        Rule::any(libc::SYS_rt_sigreturn, "back from a trap to the guest"),
        Rule::any(libc::SYS_exit_group, "the guest's end"),
        clock(libc::CLOCK_MONOTONIC),
        clock(libc::CLOCK_REALTIME),
        Rule::on_fd(libc::SYS_pwrite64, memory, "rewrite a hypercall site, keeping W^X"),
        Rule::with(libc::SYS_futex, 0, gate, "wait for the starting signal").and(1, FUTEX_WAIT),
        Rule::with(libc::SYS_arch_prctl, 0, 0x1001, "the guest's GS base, on an old kernel"),
        Rule::with(libc::SYS_arch_prctl, 0, 0x1002, "the guest's FS base, on an old kernel"),
        Rule::with(libc::SYS_arch_prctl, 0, 0x1003, "the guest's FS base, on an old kernel"),
        Rule::with(libc::SYS_arch_prctl, 0, 0x1004, "the guest's GS base, on an old kernel"),
    ]
}

/// The filter for a guest with these resources, whose memory is this file.
///
/// # Errors
/// If a rule cannot be compiled.
pub fn program(
    config: &SandboxConfig,
    memory: RawFd,
    report: &Report,
) -> Result<Program, BackendError> {
    // They are tried in this order: the devices' are the frequent ones.
    let mut rules = config.rules.clone();
    rules.extend(own_rules(memory, report));
    let program = compile(&rules)
        .map_err(|e| BackendError::new(format!("cannot make the system call filter: {e}")))?;
    Ok(program.only_from(&monitor_code()))
}

/// Where the monitor's calls may come from.
fn monitor_code() -> Vec<Range<u64>> {
    // Both are addresses that the linker defines; nothing is read there.
    let text = (&raw const __executable_start) as u64..(&raw const etext) as u64;
    // SAFETY: reads the auxiliary vector.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    if vdso == 0 { vec![text] } else { vec![text, vdso..vdso + VDSO] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::exit_group;
    use core::arch::asm;

    /// How a child ends that calls futex(2) on its gate under the filter: by which signal, if any.
    fn signal_of_futex(operation: u64) -> i32 {
        let report = Report::new().unwrap();
        let program = program(&SandboxConfig::default(), -1, &report).unwrap();
        let mut status = 0;
        // SAFETY: the child allocates nothing and ends itself; the parent waits for it.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                if program.apply().is_ok() {
                    // The gate is not 7, so a wait comes back at once.
                    asm!("syscall", inout("rax") libc::SYS_futex => _, in("rdi") report.gate_address(),
                        in("rsi") operation, in("rdx") 7, in("r10") 0, in("r8") 0, in("r9") 0,
                        out("rcx") _, out("r11") _);
                }
                exit_group();
            }
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        }
        if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 }
    }

    #[test]
    fn the_gate_is_waited_at_and_nothing_else() {
        const FUTEX_LOCK_PI: u64 = 6;
        const FUTEX_CMP_REQUEUE_PI: u64 = 12;
        assert_eq!(signal_of_futex(0), 0);
        assert_eq!(signal_of_futex(FUTEX_LOCK_PI), libc::SIGSYS);
        assert_eq!(signal_of_futex(FUTEX_CMP_REQUEUE_PI), libc::SIGSYS);
    }
}
