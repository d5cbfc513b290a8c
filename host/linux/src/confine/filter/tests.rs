//! Filters, run by a small interpreter of classic BPF instead of by the kernel.

use super::super::Within;
use super::bpf::{
    ADD, ALLOW, AUDIT_ARCH, JUMP, JUMP_EQ, JUMP_GE, JUMP_GT, JUMP_GT_X, JUMP_SET, KILL, LOAD,
    NEGATE, RETURN, TO_X, TRAP,
};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]

struct Call {
    number: i64,
    arch: u32,
    ip: u64,
    args: [u64; 6],
}

fn call(number: i64, args: [u64; 6]) -> Call {
    Call { number, arch: AUDIT_ARCH, ip: 0x5555_0000_1000, args }
}

/// What the kernel would return for a call.
fn decide(program: &Program, call: &Call) -> u32 {
    interpret(&program.0, call)
}

fn interpret(program: &[Instruction], call: &Call) -> u32 {
    let mut data = Vec::new();
    data.extend(u32::try_from(call.number).unwrap().to_le_bytes());
    data.extend(call.arch.to_le_bytes());
    data.extend(call.ip.to_le_bytes());
    call.args.iter().for_each(|a| data.extend(a.to_le_bytes()));
    let (mut at, mut a, mut x) = (0, 0u32, 0u32);
    loop {
        let i = &program[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { i.if_true } else { i.if_false });
        match i.code {
            LOAD => a = u32::from_le_bytes(data[i.k as usize..][..4].try_into().unwrap()),
            JUMP_EQ => at += jump(a == i.k),
            JUMP_GE => at += jump(a >= i.k),
            JUMP_SET => at += jump(a & i.k != 0),
            JUMP_GT => at += jump(a > i.k),
            JUMP_GT_X => at += jump(a > x),
            ADD => a = a.wrapping_add(i.k),
            NEGATE => a = a.wrapping_neg(),
            TO_X => x = a,
            0x54 => a &= i.k,
            JUMP => at += i.k as usize,
            RETURN => return i.k,
            code => panic!("opcode {code:#x}"),
        }
    }
}

fn program() -> Program {
    compile(&[
        Rule::on_fd(libc::SYS_write, 1, "out"),
        Rule::on_fd(libc::SYS_write, 9, "net"),
        Rule::any(libc::SYS_exit_group, "end"),
        Rule::with(libc::SYS_futex, 0, 0x7fff_1234_5678, "gate").and(1, 0),
    ])
    .unwrap()
}

#[test]
fn only_the_named_descriptors_are_written_to() {
    let p = program();
    for (fd, verdict) in [(1, ALLOW), (9, ALLOW), (2, KILL), (0, KILL), (u64::MAX, KILL)] {
        let decided = decide(&p, &call(libc::SYS_write, [fd, 5, 5, 0, 0, 0]));
        assert_eq!(decided, verdict, "{fd}");
    }
    assert_eq!(decide(&p, &call(libc::SYS_exit_group, [7; 6])), ALLOW);
    assert_eq!(decide(&p, &call(libc::SYS_openat, [0; 6])), KILL);
    let gate = 0x7fff_1234_5678;
    assert_eq!(decide(&p, &call(libc::SYS_futex, [gate, 0, 0, 0, 0, 0])), ALLOW);
    assert_eq!(decide(&p, &call(libc::SYS_futex, [gate, 1, 0, 0, 0, 0])), KILL);
    assert_eq!(decide(&p, &call(libc::SYS_futex, [gate & 0xffff_ffff, 0, 0, 0, 0, 0])), KILL);
}

#[test]
fn a_wait_that_was_stopped_may_go_on() {
    let verdict = |rules: &[Rule]| {
        let p = compile(rules).unwrap();
        decide(&p, &call(libc::SYS_restart_syscall, [0; 6]))
    };
    let write = || Rule::on_fd(libc::SYS_write, 1, "out");
    for waits in RESTARTED {
        assert_eq!(verdict(&[write(), Rule::any(waits, "wait")]), ALLOW, "{waits}");
    }
    assert_eq!(verdict(&[write()]), KILL);
}

#[test]
fn a_sandbox_filter_looks_where_the_call_comes_from() {
    let ranges = [0x5555_0000_1000..0x5555_0000_2000, 0x7ffe_ffff_f000..0x7fff_0000_1000];
    let p = program().only_from(&ranges);
    let from = |ip| decide(&p, &Call { ip, ..call(libc::SYS_exit_group, [0; 6]) });
    for ip in [0x5555_0000_1000, 0x5555_0000_1fff, 0x7ffe_ffff_f000, 0x7fff_0000_0000] {
        assert_eq!(from(ip), ALLOW, "{ip:#x}");
    }
    for ip in [0, 0x10_2000, 0x5555_0000_0fff, 0x5555_0000_2000, 0x7fff_0000_1000, u64::MAX] {
        assert_eq!(from(ip), TRAP, "{ip:#x}");
    }
    let other_arch = Call { arch: 0x4000_0003, ..call(1, [1, 0, 0, 0, 0, 0]) };
    assert_eq!(decide(&p, &other_arch), TRAP);
    assert_eq!(decide(&p, &call(0x4000_0001, [1, 0, 0, 0, 0, 0])), TRAP);
    assert_eq!(decide(&p, &call(libc::SYS_openat, [0; 6])), KILL);
}

/// The same rules, compiled by the crate seccompiler.
fn oracle(rules: &[Rule]) -> Vec<Instruction> {
    use seccompiler::*;
    let restart = restart(rules);
    let mut by_call: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let rules: Vec<&Rule> = rules.iter().chain(&restart).collect();
    let all = |call| rules.iter().any(|rule| rule.call == call && rule.args.is_empty());
    for rule in &rules {
        let alternatives = by_call.entry(rule.call).or_default();
        if all(rule.call) {
            continue;
        }
        let conditions = rule.args.iter().map(|&(index, value)| {
            let len = match u32::try_from(value) {
                Ok(_) => SeccompCmpArgLen::Dword,
                Err(_) => SeccompCmpArgLen::Qword,
            };
            SeccompCondition::new(index, len, SeccompCmpOp::Eq, value).unwrap()
        });
        alternatives.push(SeccompRule::new(conditions.collect()).unwrap());
    }
    let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let filter = SeccompFilter::new(by_call, kill, allow, TargetArch::x86_64).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    program
        .iter()
        .map(|i| Instruction { code: i.code, if_true: i.jt, if_false: i.jf, k: i.k })
        .collect()
}

/// Few values, so that calls often meet rules.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..4, Just(u64::MAX), (0u64..3).prop_map(|v| v << 32 | 1)]
}

fn rule() -> impl Strategy<Value = Rule> {
    (0i64..6, prop::collection::vec((0u8..6, value()), 0..4)).prop_map(|(call, args)| Rule {
        call,
        args: args.into_iter().collect(),
        within: None,
        why: "a test",
    })
}

proptest! {
    #[test]
    fn verdicts_are_those_of_another_compiler(
        rules in prop::collection::vec(rule(), 1..40),
        calls in prop::collection::vec((0i64..7, prop::array::uniform6(value())), 1..40),
    ) {
        let ours = compile(&rules).unwrap();
        let theirs = oracle(&rules);
        for (number, args) in calls {
            let call = call(number, args);
            prop_assert_eq!(decide(&ours, &call), interpret(&theirs, &call), "{:?}", call);
        }
    }
}

/// Values around every edge that 32-bit halves have.
fn edges() -> Vec<u64> {
    let units = [0, 1, 2, 3, u64::from(u32::MAX)].map(|unit| unit << 32);
    let rests = [0, 1, 511, 512, 0x7fff_ffff, 0x8000_0000, 0xffff_fe00, 0xffff_ffff];
    units.into_iter().flat_map(|unit| rests.map(|rest| unit | rest)).collect()
}

#[test]
fn transfers_stay_within_their_end() {
    for end in edges() {
        let within = Within { offset: 3, length: 2, end };
        let p = compile(&[
            Rule::on_fd(libc::SYS_pwrite64, 5, "disk").within(within),
            Rule::on_fd(libc::SYS_pwrite64, 6, "all of another"),
        ])
        .unwrap();
        for (offset, length) in
            edges().into_iter().flat_map(|a| edges().into_iter().map(move |b| (a, b)))
        {
            let write = |fd| decide(&p, &call(libc::SYS_pwrite64, [fd, 0, length, offset, 0, 0]));
            let fits =
                length >> 32 == 0 && offset.checked_add(length).is_some_and(|sum| sum <= end);
            let verdict = if fits { ALLOW } else { KILL };
            assert_eq!(write(5), verdict, "{length:#x} at {offset:#x} of {end:#x}");
            assert_eq!(write(6), ALLOW);
            assert_eq!(write(7), KILL);
        }
    }
}

#[test]
fn a_call_with_very_many_rules_does_not_shadow_those_after_it() {
    let mut rules: Vec<Rule> = (0..300).map(|fd| Rule::on_fd(libc::SYS_read, fd, "x")).collect();
    rules.push(Rule::any(libc::SYS_exit_group, "end"));
    let p = compile(&rules).unwrap();
    assert_eq!(decide(&p, &call(libc::SYS_exit_group, [0; 6])), ALLOW);
    assert_eq!(decide(&p, &call(libc::SYS_read, [299, 0, 0, 0, 0, 0])), ALLOW);
    assert_eq!(decide(&p, &call(libc::SYS_read, [300, 0, 0, 0, 0, 0])), KILL);
}

#[test]
fn rules_that_cannot_be_are_refused() {
    let refused = |rules: &[Rule]| compile(rules).err();
    assert_eq!(refused(&[Rule::with(0, 6, 0, "seven")]), Some(FilterError::Argument("seven")));
    let within = Within { offset: 3, length: 6, end: 1 };
    assert_eq!(refused(&[Rule::any(0, "x").within(within)]), Some(FilterError::Argument("x")));
    assert_eq!(refused(&[Rule::any(-1, "none")]), Some(FilterError::Number("none")));
    let many: Vec<Rule> = (0..3000).map(|fd| Rule::on_fd(0, fd, "x")).collect();
    assert!(matches!(refused(&many), Some(FilterError::TooLong(_))));
}

/// What the kernel makes of a filter, seen from a child.
mod in_the_kernel {
    use super::super::*;
    use crate::forked;
    use rustix::process::{getpid, getppid};

    const SIGSYS: i32 = libc::SIGSYS;

    fn rules() -> [Rule; 3] {
        [
            Rule::any(libc::SYS_exit_group, "the end"),
            Rule::on_fd(libc::SYS_write, 2, "errors"),
            Rule::any(libc::SYS_getppid, "something harmless"),
        ]
    }

    /// The only place in these tests that calls this.
    #[inline(never)]
    fn write_nothing(fd: usize) -> Result<usize, Errno> {
        // SAFETY: no bytes are written.
        unsafe { syscall(libc::SYS_write, [fd, 0, 0, 0, 0, 0]) }
    }

    #[test]
    fn listed_calls_work() {
        let program = compile(&rules()).unwrap();
        let status = forked::run(|| {
            let applied = program.apply();
            u8::from(applied.is_err() || getppid().is_none() || write_nothing(2) != Ok(0))
        });
        assert_eq!(status.exit_status(), Some(0));
    }

    #[test]
    fn another_descriptor_and_another_call_kill() {
        let program = compile(&rules()).unwrap();
        let status = forked::run(|| {
            let _ = program.apply();
            u8::from(write_nothing(1).is_ok())
        });
        assert_eq!(status.terminating_signal(), Some(SIGSYS));
        let status = forked::run(|| {
            let _ = program.apply();
            u8::from(getpid().is_init())
        });
        assert_eq!(status.terminating_signal(), Some(SIGSYS));
    }

    extern "C" fn on_sigsys(_: libc::c_int) {
        forked::exit(42);
    }

    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }

    #[test]
    fn a_call_from_elsewhere_is_a_signal() {
        // mov eax, SYS_getppid; syscall; ret
        const CODE: [u8; 8] = [0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3];
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let null = core::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe { mmap_anonymous(null, 4096, prot, MapFlags::PRIVATE) }.unwrap();
        // SAFETY: the page is ours and large enough; then it becomes code.
        unsafe {
            core::ptr::copy_nonoverlapping(CODE.as_ptr(), page.cast(), CODE.len());
            mprotect(page, 4096, MprotectFlags::READ | MprotectFlags::EXEC).unwrap();
        }
        // SAFETY: the page holds a function of this type.
        let foreign: extern "C" fn() -> i64 = unsafe { core::mem::transmute(page) };
        assert!(foreign() > 0, "without a filter it works");
        // Addresses that the linker defines; nothing is read there.
        let own_code = (&raw const __executable_start) as u64..(&raw const etext) as u64;
        let program = compile(&rules()).unwrap().only_from(&[own_code]);
        let status = forked::run(|| {
            // SAFETY: the handler only exits.
            unsafe { libc::signal(SIGSYS, on_sigsys as *const () as usize) };
            if program.apply().is_err() || getppid().is_none() {
                return 1;
            }
            u8::from(foreign() > 0)
        });
        assert_eq!(status.exit_status(), Some(42));
    }
}
