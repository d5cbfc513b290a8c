//! What a debugger does to a guest in a process: `hypervisor::debug` over ptrace(2).

use backend_sandbox::{Sandbox, SandboxConfig, SandboxVcpu, SandboxVm};
use hypervisor::debug::{BreakKind, Breakpoint, DebugVcpu, Registers, Stop, X86Registers};
use hypervisor::memory::{Gpa, GuestMemory, Gva, Perms};
use hypervisor::vcpu::*;
use std::sync::Arc;

const MEMORY: u64 = 0x20_0000;
const TEXT: u64 = 0x10_0000;
const DATA: u64 = 0x11_0000;
const STACK: u64 = 0x18_0000;
/// A port that is answered, and one that ends the guest with what is written.
const CALL: u16 = 0x500;
const END: u16 = 0x501;

/// inc eax; inc eax; mov [rdi], eax; mov edx, 0x500; out dx, eax; inc edx; out dx, eax
const COUNTS: [u8; 16] = [
    0xff, 0xc0, 0xff, 0xc0, 0x89, 0x07, 0xba, 0x00, 0x05, 0x00, 0x00, 0xef, 0xff, 0xc2, 0xef, 0xf4,
];
const OUT: u64 = TEXT + 11;
/// jmp to itself
const SPINS: [u8; 2] = [0xeb, 0xfe];
/// int3; ud2, with no handlers
const BREAKS: [u8; 1] = [0xcc];

struct Answers;

impl ExitHandler for Answers {
    fn handle(&self, exit: VmExit, memory: &GuestMemory) -> Answer {
        match exit {
            VmExit::Io { port: CALL, write: Some(value), .. } => {
                memory.write_obj(Gpa(DATA + 8), &value).unwrap();
                Answer::Resume(VmEntry::Continue)
            }
            VmExit::Io { port: END, write: Some(value), .. } => {
                Answer::End(Ending::Exit { status: value.cast_signed(), cookie: None })
            }
            other => Answer::End(Ending::Fault(line(format_args!("{other:?}")))),
        }
    }
}

fn guest(code: &[u8], keep_code: bool) -> (SandboxVm, SandboxVcpu) {
    let rules = Vec::new();
    let backend = Sandbox::new(SandboxConfig { descriptors: vec![2], rules, keep_code });
    let mut vm = backend.create_vm(VmSpec { memory: MEMORY }).unwrap();
    vm.memory().write_bytes(Gpa(TEXT), code).unwrap();
    vm.protect(TEXT..TEXT + 0x1000, Perms::READ | Perms::EXEC).unwrap();
    let segment = |selector, attributes| Segment { selector, base: 0, limit: !0, attributes };
    let state = X86State {
        rip: TEXT,
        rsp: STACK,
        rdi: DATA,
        rflags: 2,
        cs: segment(8, 0xa9b),
        data: segment(16, 0xc93),
        tr: Segment { limit: 0, ..segment(0, 0x8b) },
        ..X86State::default()
    };
    let vcpu = vm.create_vcpu(VcpuState::X86(state), Arc::new(Answers)).unwrap();
    (vm, vcpu)
}

fn debugged(code: &[u8]) -> (SandboxVm, SandboxVcpu) {
    let (vm, mut vcpu) = guest(code, true);
    vcpu.attach().unwrap();
    (vm, vcpu)
}

fn resume(vcpu: &mut SandboxVcpu, step: bool) -> Stop {
    vcpu.resume(VmEntry::Continue, step).unwrap()
}

fn registers(vcpu: &SandboxVcpu) -> X86Registers {
    let Registers::X86(registers) = vcpu.registers().unwrap();
    registers
}

fn at(kind: BreakKind, address: u64) -> Breakpoint {
    Breakpoint { kind, address: Gva(address) }
}

/// Resumes to the guest's end by a fault, and gives its text.
fn fault(vcpu: &mut SandboxVcpu) -> Line {
    match resume(vcpu, false) {
        Stop::Exit(VmExit::Ended(ending)) => match *ending {
            Ending::Fault(text) => text,
            other => panic!("{other:?} is no fault"),
        },
        other => panic!("{other:?} is no end"),
    }
}

fn exit(status: i32) -> Stop {
    Stop::Exit(VmExit::Ended(Box::new(Ending::Exit { status, cookie: None })))
}

#[test]
fn a_guest_waits_at_its_entry_and_runs_to_its_end() {
    let (_vm, mut vcpu) = debugged(&COUNTS);
    let now = registers(&vcpu);
    assert_eq!((now.rip, now.general[7], now.general[5]), (TEXT, STACK, DATA));
    assert_eq!(now.segments, [8, 16, 16, 16, 16, 16]);
    assert_eq!(now.rflags & 1 << 9, 0, "interrupts are off");
    assert_eq!(resume(&mut vcpu, false), exit(2));
    assert_eq!(resume(&mut vcpu, false), exit(2), "and stays there");
    assert_eq!(registers(&vcpu).rip, OUT + 3, "where it ended can still be seen");
}

#[test]
fn steps_are_single_instructions_and_a_hypercall_is_one() {
    let (vm, mut vcpu) = debugged(&COUNTS);
    for (rip, rax) in [(2, 1), (4, 2), (6, 2), (11, 2), (12, 2), (14, 2)] {
        assert_eq!(resume(&mut vcpu, true), Stop::Step);
        let now = registers(&vcpu);
        assert_eq!((now.rip, now.general[0]), (TEXT + rip, rax));
    }
    assert_eq!(vm.memory().read_obj::<u32>(Gpa(DATA + 8)), Ok(2), "the hypercall was answered");
    assert_eq!(resume(&mut vcpu, true), exit(2));
}

#[test]
fn breakpoints_of_every_kind() {
    let (vm, mut vcpu) = debugged(&COUNTS);
    let software = at(BreakKind::Software, TEXT + 2);
    let write = at(BreakKind::Write { len: 4 }, DATA);
    let hardware = at(BreakKind::Hardware, OUT);
    let after = at(BreakKind::Software, OUT + 1);
    for breakpoint in [software, software, write, hardware, after] {
        assert_eq!(vcpu.insert(breakpoint), Ok(true));
    }
    assert_eq!(resume(&mut vcpu, false), Stop::Breakpoint(software));
    assert_eq!(registers(&vcpu).rip, TEXT + 2);
    let mut text = [0; 16];
    vcpu.peek(vm.memory(), Gpa(TEXT), &mut text).unwrap();
    assert_eq!(text, COUNTS, "it does not show");
    // One that is not taken away does not stop the guest twice at one visit.
    assert_eq!(resume(&mut vcpu, false), Stop::Breakpoint(write));
    assert_eq!(registers(&vcpu).rip, TEXT + 6, "after the access");
    assert_eq!(resume(&mut vcpu, false), Stop::Breakpoint(hardware));
    assert_eq!(registers(&vcpu).rip, OUT);
    for breakpoint in [software, write, hardware] {
        assert_eq!(vcpu.remove(breakpoint), Ok(true));
        assert_eq!(vcpu.remove(breakpoint), Ok(false));
    }
    assert_eq!(resume(&mut vcpu, false), Stop::Breakpoint(after), "behind a hypercall");
    assert_eq!(resume(&mut vcpu, false), exit(2));
}

#[test]
fn what_the_monitor_writes_for_the_guest_is_watched() {
    let (_vm, mut vcpu) = debugged(&COUNTS);
    let write = at(BreakKind::Write { len: 4 }, DATA + 8);
    assert_eq!(vcpu.insert(write), Ok(true));
    assert_eq!(resume(&mut vcpu, false), Stop::Breakpoint(write));
    assert_eq!(registers(&vcpu).rip, OUT + 1, "behind the hypercall that writes");
    assert_eq!(resume(&mut vcpu, false), exit(2));
}

#[test]
fn breakpoint_registers_run_out() {
    let (_vm, mut vcpu) = debugged(&COUNTS);
    for slot in 0..4 {
        assert_eq!(vcpu.insert(at(BreakKind::Hardware, TEXT + slot)), Ok(true));
    }
    assert_eq!(vcpu.insert(at(BreakKind::Hardware, TEXT + 4)), Ok(false));
    assert_eq!(vcpu.remove(at(BreakKind::Hardware, TEXT)), Ok(true));
    assert_eq!(vcpu.insert(at(BreakKind::Write { len: 4 }, DATA + 1)), Ok(false), "misaligned");
    assert_eq!(vcpu.insert(at(BreakKind::Access { len: 8 }, DATA)), Ok(true));
    for nowhere in [0, 0xffff, MEMORY, u64::MAX] {
        assert_eq!(vcpu.insert(at(BreakKind::Software, nowhere)), Ok(false), "{nowhere:#x}");
    }
}

#[test]
fn registers_and_memory_are_set() {
    let (vm, mut vcpu) = debugged(&COUNTS);
    let mut new = registers(&vcpu);
    new.rip = TEXT + 6;
    new.general[0] = 77;
    new.general[15] = u64::MAX;
    (new.fs_base, new.gs_base) = (0x1234, 0x5678);
    new.xmm[3] = [3; 16];
    new.x87[1] = [4; 10];
    vcpu.set_registers(&Registers::X86(new)).unwrap();
    assert_eq!(registers(&vcpu), new);
    // The second port is the first again: the guest is not ended by it, but by its `hlt`.
    vcpu.poke(Gpa(OUT + 1), &[0x90, 0x90]).unwrap();
    let mut bytes = [0; 3];
    vcpu.peek(vm.memory(), Gpa(OUT), &mut bytes).unwrap();
    assert_eq!(bytes, [0xef, 0x90, 0x90], "although its text is protected");
    let text = fault(&mut vcpu);
    assert_eq!(&*text, "Halt");
    assert_eq!(vm.memory().read_obj::<u32>(Gpa(DATA + 8)), Ok(77));
    for (nowhere, len) in [(0, 1), (MEMORY - 1, 2), (u64::MAX, 2)] {
        assert!(vcpu.poke(Gpa(nowhere), &vec![0; len]).is_err(), "{nowhere:#x}");
    }
    assert_eq!(vcpu.translate(Gva(TEXT + 5)), Ok(Some(Gpa(TEXT + 5))));
    assert_eq!(vcpu.translate(Gva(MEMORY)), Ok(None));
}

#[test]
fn the_guests_own_int3_is_the_guests() {
    let (_vm, mut vcpu) = debugged(&BREAKS);
    let text = fault(&mut vcpu);
    assert!(text.starts_with("Shutdown"), "{text}");
}

#[test]
fn a_guest_that_is_left_alone_goes_on_alone() {
    for with_breakpoints in [false, true] {
        let (_vm, mut vcpu) = debugged(&COUNTS);
        if with_breakpoints {
            assert_eq!(vcpu.insert(at(BreakKind::Software, TEXT + 2)), Ok(true));
            assert_eq!(vcpu.insert(at(BreakKind::Write { len: 4 }, DATA)), Ok(true));
            resume(&mut vcpu, false);
        }
        vcpu.detach().unwrap();
        let ended = VmExit::Ended(Box::new(Ending::Exit { status: 2, cookie: None }));
        assert_eq!(vcpu.run(VmEntry::Continue), Ok(ended));
    }
}

#[test]
fn a_guest_without_a_debugger_cannot_be_debugged() {
    let (_vm, mut vcpu) = guest(&COUNTS, false);
    assert!(vcpu.attach().is_err());
    assert!(vcpu.registers().is_err());
    let ended = VmExit::Ended(Box::new(Ending::Exit { status: 2, cookie: None }));
    assert_eq!(vcpu.run(VmEntry::Continue), Ok(ended));
}

#[test]
fn a_guest_that_is_killed_has_ended() {
    let (_vm, mut vcpu) = debugged(&SPINS);
    rustix::process::kill_process(vcpu.pid(), rustix::process::Signal::KILL).unwrap();
    for _ in 0..2 {
        let text = fault(&mut vcpu);
        assert!(text.contains("SIGKILL"), "{text}");
    }
}
