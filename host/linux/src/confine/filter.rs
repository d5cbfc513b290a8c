//! System call filters: seccomp(2), Linux `Documentation/userspace-api/seccomp_filter.rst`.
//!
//! A plain filter allows what the rules say and kills the process at anything else. A filter for
//! a sandbox has a prefix: calls from elsewhere than the monitor's code, of another architecture,
//! or of the x32 kind become SIGSYS, so that a guest's `syscall` is an exception to the guest.
//!
//! The compiler is ours because start-up counts: for 20 rules the crate seccompiler takes 50,000
//! instructions, a third of what the whole tender may, and this takes some thousand. The tests
//! hold the two against each other.

#![allow(unsafe_code)]

use super::Rule;
use super::bpf::{self, Instruction, Word};
use crate::sys::syscall;
use core::ops::Range;
use rustix::io::Errno;

/// Why rules cannot be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A system call has six arguments.
    #[error("the rule `{0}` names an argument that no system call has; use 0 to 5")]
    Argument(&'static str),
    /// Numbers are positive.
    #[error("the rule `{0}` has no system call's number")]
    Number(&'static str),
    /// The kernel takes 4096 instructions.
    #[error("{0} instructions are too many for a system call filter; attach fewer devices")]
    TooLong(usize),
}

/// The kernel's BPF_MAXINSNS.
const LONGEST: usize = 4096;
/// Room that is kept for [`Program::only_from`].
const PREFIX: usize = 64;

/// Instructions before the first rule, after which the accumulator holds the call's number.
const HEAD: usize = 5;

/// A compiled filter.
pub struct Program(Vec<Instruction>);

/// Calls that wait for some time. If a process is stopped meanwhile and goes on (SIGSTOP and SIGCONT,
/// a frozen cgroup, a debugger), the kernel makes it call restart_syscall(2), which goes on with the
/// rest of the wait. That call does nothing else: without an interrupted wait it fails with EINTR.
const RESTARTED: [i64; 4] =
    [libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_poll, libc::SYS_futex];

/// The rule that some of the others bring with them.
fn restart(rules: &[Rule]) -> Option<Rule> {
    let restarted = rules.iter().any(|rule| RESTARTED.contains(&rule.call));
    restarted.then(|| Rule::any(libc::SYS_restart_syscall, "a wait goes on after a stop"))
}

/// Compiles rules into a filter that kills the process at everything else. Rules are tried in
/// their order, those of one call together: put what is frequent first. Where a call is allowed
/// that may have to be restarted, restart_syscall(2) is, too.
///
/// The first instruction loads a value that the filter then ignores. When a filter is installed,
/// Linux (5.11 and later) tries it out for each of 450 system calls, to find those that are
/// always allowed, until an instruction asks for more than the call's number. With a list of
/// calls to compare with, that costs five times as much as all the rest of the installation.
///
/// # Errors
/// [`FilterError`].
pub fn compile(rules: &[Rule]) -> Result<Program, FilterError> {
    // Two loads, the last word, and some six instructions for each rule.
    let mut code = Vec::with_capacity(rules.len() * 6 + 8);
    let head: [_; HEAD] = [
        // Ignored: see above.
        bpf::load(Word::IpLow),
        bpf::load(Word::Arch),
        bpf::skip_if_eq(bpf::AUDIT_ARCH, 1),
        bpf::ret(bpf::KILL),
        bpf::load(Word::Number),
    ];
    code.extend(head);
    for (index, rule) in rules.iter().enumerate() {
        let seen = rules[..index].iter().any(|earlier| earlier.call == rule.call);
        if !seen {
            compile_call(&mut code, rule, &rules[index..])?;
        }
    }
    if let Some(restart) = restart(rules) {
        compile_call(&mut code, &restart, core::slice::from_ref(&restart))?;
    }
    code.push(bpf::ret(bpf::KILL));
    if code.len() > LONGEST - PREFIX {
        return Err(FilterError::TooLong(code.len()));
    }
    Ok(Program(code))
}

/// All rules for the call of `first`: entered with the call's number, left with a verdict or, for
/// another call, with the number as it was.
fn compile_call(
    code: &mut Vec<Instruction>,
    first: &Rule,
    rules: &[Rule],
) -> Result<(), FilterError> {
    let number = u32::try_from(first.call).map_err(|_| FilterError::Number(first.why))?;
    let same = || rules.iter().filter(|rule| rule.call == first.call);
    code.push(bpf::skip_if_eq(number, 1));
    let past = code.len();
    code.push(bpf::jump(0));
    if same().any(|rule| rule.args.is_empty() && rule.within.is_none()) {
        code.push(bpf::ret(bpf::ALLOW));
    } else {
        let mut loaded = Word::Number;
        for rule in same() {
            compile_arguments(code, rule, &mut loaded)?;
        }
        code.push(bpf::ret(bpf::KILL));
    }
    code[past] = bpf::jump(code.len() - past - 1);
    Ok(())
}

/// One rule: allows, or falls through. `loaded` is what the accumulator holds.
fn compile_arguments(
    code: &mut Vec<Instruction>,
    rule: &Rule,
    loaded: &mut Word,
) -> Result<(), FilterError> {
    let words = rule.args.iter().flat_map(|&(index, value)| {
        // A descriptor is an int: the kernel ignores the upper half of its register.
        let upper = (bpf::high(value) != 0).then_some((Word::High(index), bpf::high(value)));
        upper.into_iter().chain([(Word::Low(index), bpf::low(value))])
    });
    let indices = rule.args.iter().map(|&(index, _)| index);
    if indices.chain(rule.within.iter().flat_map(|w| [w.offset, w.length])).any(|i| i > 5) {
        return Err(FilterError::Argument(rule.why));
    }
    let start = code.len();
    let mut compared = 0;
    for (word, value) in words {
        compared += 1;
        if *loaded != word {
            code.push(bpf::load(word));
            *loaded = word;
        }
        code.push(bpf::skip_unless_eq(value, 0));
    }
    let compared_to = code.len();
    if let Some(within) = &rule.within {
        code.extend(bpf::skip_beyond(within));
    }
    code.push(bpf::ret(bpf::ALLOW));
    let end = code.len();
    for (at, instruction) in code[..compared_to].iter_mut().enumerate().skip(start) {
        bpf::set_skip(instruction, end - at - 1);
    }
    // The next rule is entered from any of these comparisons.
    if compared > 1 || rule.within.is_some() {
        *loaded = Word::Number;
    }
    Ok(())
}

impl Program {
    /// The same filter for calls from these code ranges only; others become SIGSYS. At most three
    /// ranges, each shorter than 4 GiB; the reported address is that of the instruction after the call.
    #[must_use]
    pub fn only_from(self, ranges: &[Range<u64>]) -> Self {
        let parts: Vec<Range<u64>> = ranges.iter().flat_map(split).take(6).collect();
        let mut program = Vec::with_capacity(self.0.len() + PREFIX);
        program.extend([
            bpf::load(Word::Arch),
            bpf::skip_if_eq(bpf::AUDIT_ARCH, 1),
            bpf::ret(bpf::TRAP),
        ]);
        for (index, part) in parts.iter().enumerate() {
            // Over the other blocks and the trap behind them.
            let found = (parts.len() - index - 1) * bpf::WITHIN + 1;
            program.extend(bpf::skip_within(part, found));
        }
        program.extend([
            bpf::ret(bpf::TRAP),
            bpf::load(Word::Number),
            bpf::skip_unless_any(bpf::X32_BIT, 1),
            bpf::ret(bpf::TRAP),
        ]);
        // The architecture has been looked at, and the trial ends at the first range's load.
        program.extend(self.0.into_iter().skip(HEAD));
        Self(program)
    }

    /// Puts the filter around this process, all its threads, for good. Sets no-new-privileges
    /// first.
    ///
    /// # Errors
    /// The system's; `NOSYS` where an outer filter forbids it, `SRCH` where another thread has a
    /// filter of its own.
    pub fn apply(&self) -> Result<(), Errno> {
        #[repr(C)]
        struct SockFprog {
            len: u16,
            filter: *const Instruction,
        }
        const SET_MODE_FILTER: usize = 1;
        const TSYNC: usize = 1;
        let len = u16::try_from(self.0.len()).map_err(|_| Errno::TOOBIG)?;
        let program = SockFprog { len, filter: self.0.as_ptr() };
        no_new_privileges()?;
        let args = [SET_MODE_FILTER, TSYNC, &raw const program as usize, 0, 0, 0];
        // SAFETY: the program is valid for the call, and the kernel checks it.
        match unsafe { syscall(libc::SYS_seccomp, args) }? {
            0 => Ok(()),
            _thread => Err(Errno::SRCH),
        }
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
