//! Filters, run by a small interpreter of classic BPF instead of by the kernel.

use super::*;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;

struct Call {
    number: i64,
    arch: u32,
    ip: u64,
    args: [u64; 6],
}

fn call(number: i64, args: [u64; 6]) -> Call {
    Call { number, arch: AUDIT_ARCH_X86_64, ip: 0x5555_0000_1000, args }
}

/// What the kernel would return for a call.
fn decide(program: &Program, call: &Call) -> u32 {
    let mut data = Vec::new();
    data.extend(u32::try_from(call.number).unwrap().to_le_bytes());
    data.extend(call.arch.to_le_bytes());
    data.extend(call.ip.to_le_bytes());
    call.args.iter().for_each(|a| data.extend(a.to_le_bytes()));
    let (mut at, mut a) = (0, 0u32);
    loop {
        let i = &program.0[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
        match i.code {
            LOAD => a = u32::from_le_bytes(data[i.k as usize..][..4].try_into().unwrap()),
            JUMP_EQ => at += jump(a == i.k),
            JUMP_GE => at += jump(a >= i.k),
            JUMP_SET => at += jump(a & i.k != 0),
            0x25 => at += jump(a > i.k),
            0x54 => a &= i.k,
            0x05 => at += i.k as usize,
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
fn a_sandbox_filter_looks_where_the_call_comes_from() {
    let ranges = [0x5555_0000_1000..0x5555_0000_2000, 0x7ffe_ffff_f000..0x7fff_0000_1000];
    let p = program().only_from(&ranges);
    let from = |ip| decide(&p, &Call { ip, ..call(libc::SYS_exit_group, [0; 6]) });
    for ip in [0x5555_0000_1000, 0x5555_0000_1fff, 0x7ffe_ffff_f000, 0x7fff_0000_0000] {
        assert_eq!(from(ip), ALLOW, "{ip:#x}");
    }
    for ip in [0, 0x10_2000, 0x5555_0000_0fff, 0x5555_0000_2000, 0x7fff_0000_1000, u64::MAX] {
        assert_eq!(from(ip), RET_TRAP, "{ip:#x}");
    }
    let other_arch = Call { arch: 0x4000_0003, ..call(1, [1, 0, 0, 0, 0, 0]) };
    assert_eq!(decide(&p, &other_arch), RET_TRAP);
    assert_eq!(decide(&p, &call(0x4000_0001, [1, 0, 0, 0, 0, 0])), RET_TRAP);
    assert_eq!(decide(&p, &call(libc::SYS_openat, [0; 6])), KILL);
}
