//! System call filters: seccomp(2), compiled by seccompiler.
//!
//! A plain filter allows what the rules say and kills the process at anything else. A filter for
//! a sandbox has a prefix: calls from elsewhere than the monitor's code, of another architecture,
//! or of the x32 kind become SIGSYS, so that a guest's `syscall` is an exception to the guest.

#![allow(unsafe_code)]

use super::Rule;
use crate::sys::syscall;
use core::ops::Range;
use rustix::io::Errno;
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

/// A compiled filter.
pub struct Program(Vec<sock_filter>);

/// Compiles rules into a filter that kills the process at everything else.
///
/// Its first instruction loads a value that the filter then ignores. When a filter is installed,
/// Linux (5.11 and later) tries it out for each of 450 system calls, to find those that are
/// always allowed, until an instruction asks for more than the call's number. A list of calls to
/// compare with makes that five times as expensive as all the rest of the installation, and none
/// of the calls that matter here is always allowed.
///
/// # Errors
/// If a rule has an argument that does not exist.
pub fn compile(rules: &[Rule]) -> Result<Program, BackendError> {
    let mut by_call: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let alternatives = by_call.entry(rule.call).or_default();
        if rule.args.is_empty() {
            continue;
        }
        let conditions = rule.args.iter().map(|&(index, value)| {
            // A descriptor is an int: the kernel ignores the upper half of its register.
            let len = if value > u64::from(u32::MAX) {
                SeccompCmpArgLen::Qword
            } else {
                SeccompCmpArgLen::Dword
            };
            SeccompCondition::new(index, len, SeccompCmpOp::Eq, value)
        });
        alternatives.push(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
    }
    // A call without conditions anywhere is allowed whatever its arguments.
    for rule in rules.iter().filter(|rule| rule.args.is_empty()) {
        by_call.insert(rule.call, Vec::new());
    }
    let filter = SeccompFilter::new(
        by_call,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    let mut program = vec![op(LOAD, 0, 0, DATA_IP_LOW)];
    program.extend::<Vec<sock_filter>>(filter.try_into()?);
    Ok(Program(program))
}

// Classic BPF (Linux `include/uapi/linux/filter.h`, `seccomp.h`).
const LOAD: u16 = 0x20;
const JUMP_EQ: u16 = 0x15;
const JUMP_GE: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
const DATA_NR: u32 = 0;
const DATA_ARCH: u32 = 4;
const DATA_IP_LOW: u32 = 8;
const DATA_IP_HIGH: u32 = 12;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const X32_BIT: u32 = 0x4000_0000;
const RET_TRAP: u32 = 0x0003_0000;

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

impl Program {
    /// The same filter for calls from these code ranges only; others become SIGSYS. At most three
    /// ranges; the reported address is that of the instruction after the call.
    #[must_use]
    pub fn only_from(self, ranges: &[Range<u64>]) -> Self {
        /// Instructions for each range.
        const BLOCK: usize = 5;
        let parts: Vec<Range<u64>> = ranges.iter().flat_map(split).take(6).collect();
        let mut program = vec![
            op(LOAD, 0, 0, DATA_ARCH),
            op(JUMP_EQ, 1, 0, AUDIT_ARCH_X86_64),
            op(RETURN, 0, 0, RET_TRAP),
        ];
        for (index, part) in parts.iter().enumerate() {
            let blocks_left = parts.len() - index - 1;
            // Over the other blocks and the trap behind them.
            let found = u8::try_from(blocks_left * BLOCK + 1).unwrap_or(u8::MAX);
            let high = high(part.start);
            program.extend([
                op(LOAD, 0, 0, DATA_IP_HIGH),
                op(JUMP_EQ, 0, 3, high),
                op(LOAD, 0, 0, DATA_IP_LOW),
                op(JUMP_GE, 0, 1, low(part.start)),
                op(JUMP_GE, 0, found, low(part.end)),
            ]);
        }
        program.extend([
            op(RETURN, 0, 0, RET_TRAP),
            op(LOAD, 0, 0, DATA_NR),
            op(JUMP_SET, 0, 1, X32_BIT),
            op(RETURN, 0, 0, RET_TRAP),
        ]);
        program.extend(self.0);
        Self(program)
    }

    /// Puts the filter around this process for good. Sets no-new-privileges first.
    ///
    /// # Errors
    /// The system's; `NOSYS` where an outer filter forbids it.
    pub fn apply(&self) -> Result<(), Errno> {
        #[repr(C)]
        struct SockFprog {
            len: u16,
            filter: *const sock_filter,
        }
        const SECCOMP_SET_MODE_FILTER: usize = 1;
        let len = u16::try_from(self.0.len()).map_err(|_| Errno::TOOBIG)?;
        let program = SockFprog { len, filter: self.0.as_ptr() };
        no_new_privileges()?;
        let args = [SECCOMP_SET_MODE_FILTER, 0, &raw const program as usize, 0, 0, 0];
        // SAFETY: the program is valid for the call, and the kernel checks it.
        unsafe { syscall(libc::SYS_seccomp, args) }.map(drop)
    }
}

/// No program that this process starts can gain privileges any more.
///
/// # Errors
/// The system's.
pub fn no_new_privileges() -> Result<(), Errno> {
    let option = usize::try_from(libc::PR_SET_NO_NEW_PRIVS).unwrap_or(0);
    // SAFETY: no memory is involved.
    unsafe { syscall(libc::SYS_prctl, [option, 1, 0, 0, 0, 0]) }.map(drop)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
const fn low(value: u64) -> u32 {
    value as u32
}

const fn high(value: u64) -> u32 {
    low(value >> 32)
}

/// A range in pieces that do not cross a multiple of 4 GiB: the filter compares 32 bits at once.
fn split(range: &Range<u64>) -> Vec<Range<u64>> {
    let boundary = (range.start | 0xffff_ffff).saturating_add(1);
    if range.end < boundary {
        return vec![range.clone()];
    }
    // The last address before a boundary is never the address after a system call here.
    vec![range.start..boundary - 1, boundary..range.end]
}

#[cfg(test)]
mod tests;
