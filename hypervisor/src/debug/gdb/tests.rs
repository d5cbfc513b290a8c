#![allow(unsafe_code)]

use super::frame::sum;
use super::*;
use crate::debug::{BreakKind, Breakpoint, DebugVcpu, Registers, Stop, X86Registers};
use crate::memory::{Gpa, GuestMemory, Gva, HostBlock};
use crate::vcpu::{Answer, BackendError, BackendVcpu, ExitHandler, VmEntry, VmExit, line};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const BASE: u64 = 0x1000;
const LEN: u64 = 0x2000;

/// A vCPU that does what its script says, then spins.
struct Scripted<'a> {
    memory: &'a GuestMemory,
    registers: X86Registers,
    script: VecDeque<Stop>,
    entries: Vec<(VmEntry, bool)>,
    breakpoints: Vec<Breakpoint>,
    detached: bool,
}

impl BackendVcpu for Scripted<'_> {
    fn run(&mut self, _: VmEntry) -> Result<VmExit, BackendError> {
        Ok(VmExit::Interrupted)
    }
}

impl DebugVcpu for Scripted<'_> {
    fn detach(&mut self) -> Result<(), BackendError> {
        self.detached = true;
        Ok(())
    }

    fn resume(&mut self, entry: VmEntry, step: bool) -> Result<Stop, BackendError> {
        self.entries.push((entry, step));
        let spin = if step { Stop::Step } else { Stop::Exit(VmExit::Interrupted) };
        let stop = self.script.pop_front().unwrap_or(spin);
        if stop == Stop::Step {
            self.registers.rip += 1;
        }
        Ok(stop)
    }

    fn registers(&self) -> Result<Registers, BackendError> {
        Ok(Registers::X86(self.registers))
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), BackendError> {
        let Registers::X86(registers) = registers;
        self.registers = *registers;
        Ok(())
    }

    fn insert(&mut self, breakpoint: Breakpoint) -> Result<bool, BackendError> {
        let room = self.breakpoints.len() < 4;
        if room {
            self.breakpoints.push(breakpoint);
        }
        Ok(room)
    }

    fn remove(&mut self, breakpoint: Breakpoint) -> Result<bool, BackendError> {
        let before = self.breakpoints.len();
        self.breakpoints.retain(|at| *at != breakpoint);
        Ok(self.breakpoints.len() < before)
    }

    fn translate(&self, address: Gva) -> Result<Option<Gpa>, BackendError> {
        Ok((BASE..BASE + LEN).contains(&address.0).then_some(Gpa(address.0)))
    }

    fn poke(&mut self, at: Gpa, bytes: &[u8]) -> Result<(), BackendError> {
        Ok(self.memory.write_bytes(at, bytes)?)
    }
}

/// A debugger that says all this, then hangs up. While the guest runs it only interrupts.
struct Script {
    says: VecDeque<u8>,
    /// How often it lets the guest run on before it hangs up.
    patience: u8,
    hears: Vec<u8>,
}

impl Link for Script {
    fn next(&mut self, wait: bool) -> Heard {
        match self.says.front() {
            None if !wait && self.patience > 0 => {
                self.patience -= 1;
                Heard::Nothing
            }
            None => Heard::Gone,
            Some(&byte) if wait || byte == 3 => {
                self.says.pop_front();
                Heard::Byte(byte)
            }
            Some(_) => Heard::Nothing,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.hears.extend_from_slice(bytes);
        true
    }
}

struct Service;

impl ExitHandler for Service {
    fn handle(&self, exit: VmExit, _: &GuestMemory) -> Answer {
        match exit {
            VmExit::Interrupted => Answer::Resume(VmEntry::Continue),
            VmExit::Io { .. } => Answer::Resume(VmEntry::Data(7)),
            other => Answer::End(Ending::Fault(line(format_args!("{other:?}")))),
        }
    }
}

struct Outcome {
    done: Done,
    answers: Vec<String>,
    entries: Vec<(VmEntry, bool)>,
    breakpoints: Vec<Breakpoint>,
    detached: bool,
}

fn framed(packet: &str) -> Vec<u8> {
    format!("${packet}#{:02x}", sum(packet.as_bytes())).into_bytes()
}

fn talk(says: Vec<u8>, script: Vec<Stop>) -> Outcome {
    let mut memory = GuestMemory::new();
    memory.add(HostBlock::zeroed(Gpa(BASE), LEN)).unwrap();
    let mut vcpu = Scripted {
        memory: &memory,
        registers: X86Registers { rip: BASE, ..Default::default() },
        script: script.into(),
        entries: Vec::new(),
        breakpoints: Vec::new(),
        detached: false,
    };
    let mut link = Script { says: says.into(), patience: 8, hears: Vec::new() };
    let done = serve(&mut vcpu, &Service, &memory, &mut link).unwrap();
    let heard = String::from_utf8(link.hears).unwrap();
    let answers = heard.split('$').skip(1).map(|a| a.split('#').next().unwrap().into()).collect();
    let Scripted { entries, breakpoints, detached, .. } = vcpu;
    Outcome { done, answers, entries, breakpoints, detached }
}

fn packets(packets: &[&str], script: Vec<Stop>) -> Outcome {
    talk(packets.iter().flat_map(|packet| framed(packet)).collect(), script)
}

fn ended(status: i32) -> Stop {
    Stop::Exit(VmExit::Ended(Box::new(Ending::Exit { status, cookie: None })))
}

#[test]
fn a_guest_runs_to_its_end_and_the_debugger_hears_of_it() {
    let io = VmExit::Io { port: 1, size: 4, write: None };
    let run = packets(&["?", "c"], vec![Stop::Exit(io), ended(0x103)]);
    assert_eq!(run.answers, ["T05thread:01;", "W03"]);
    assert_eq!(run.done, Done::Ended(Ending::Exit { status: 0x103, cookie: None }));
    assert_eq!(run.entries, [(VmEntry::Continue, false), (VmEntry::Data(7), false)]);
    assert!(run.detached, "what is left has no breakpoints");
}

#[test]
fn a_step_over_a_hypercall_is_one_step() {
    let io = Stop::Exit(VmExit::Io { port: 1, size: 4, write: None });
    let run = packets(&["s", "s", "k"], vec![io]);
    assert_eq!(run.answers, ["S05", "S05", "OK"]);
    assert_eq!(run.done, Done::Killed);
    let entries = [VmEntry::Continue, VmEntry::Data(7), VmEntry::Continue];
    assert_eq!(run.entries, entries.map(|entry| (entry, true)));
}

#[test]
fn a_fault_can_be_looked_at_before_the_guest_is_gone() {
    let fault = Stop::Exit(VmExit::Halt);
    let run = packets(&["c", "g", "m1000,2", "c"], vec![fault.clone()]);
    assert_eq!(run.answers[0], "O48616c740a", "the words");
    assert_eq!(run.answers[1], "S0b");
    assert_eq!(run.answers[3..], ["0000", "X0b"]);
    assert_eq!(run.entries.len(), 1, "and does not run any more");
    let dead = Done::Ended(Ending::Fault(line(format_args!("Halt"))));
    assert_eq!(run.done, dead);
    for last in ["D", "k"] {
        assert_eq!(packets(&["c", last], vec![fault.clone()]).done, dead);
    }
    assert_eq!(packets(&["c"], vec![fault]).done, dead, "hung up");
}

#[test]
fn registers_and_memory() {
    let zeros = "00".repeat(0x218);
    let set = format!("G{}", "01".repeat(0x218));
    let run = packets(
        &["g", &set, "g", "M1ffe,4:01020304", "m1ffe,4", "M2fff,2:0506", "m2ffe,4", "m3000,1", "k"],
        vec![],
    );
    let start = format!("{}{}", &zeros[..256], "0010000000000000");
    assert!(run.answers[0].starts_with(&start), "{}", run.answers[0]);
    assert_eq!(run.answers[1], "OK");
    assert!(run.answers[2].starts_with(&"01".repeat(0x8c)));
    assert_eq!(run.answers[3..5], ["OK", "01020304"], "across a page");
    assert_eq!(run.answers[5], "E79", "nothing is written");
    assert_eq!(run.answers[6], "0000", "what there is");
    assert_eq!(run.answers[7], "E79");
}

#[test]
fn bad_addresses_are_the_debuggers_errors() {
    for packet in ["m0,1", "mffffffffffffff00,1000", "mffffffffffffffff,2", "M0,1:00", "M3000,1:00"]
    {
        let run = packets(&[packet, "?"], vec![]);
        assert!(run.answers[0].starts_with('E'), "{packet}: {}", run.answers[0]);
        assert_eq!(run.answers[1], "T05thread:01;", "{packet}");
    }
}

#[test]
fn breakpoints_are_set_and_told() {
    let at = |kind, address| Breakpoint { kind, address: Gva(address) };
    let software = at(BreakKind::Software, 0x1004);
    let read = at(BreakKind::Access { len: 8 }, 0x1008);
    let access = at(BreakKind::Access { len: 4 }, 0x1010);
    let script = [software, read, access].map(Stop::Breakpoint).to_vec();
    let run = packets(&["Z0,1004,1", "Z3,1008,8", "Z4,1010,4", "c", "c", "c"], script);
    assert_eq!(run.answers[..3], ["OK"; 3]);
    assert_eq!(run.answers[3], "T05thread:01;swbreak:;");
    assert_eq!(run.answers[4], "T05thread:01;rwatch:1008;");
    assert_eq!(run.answers[5], "T05thread:01;awatch:1010;");
    assert_eq!(run.breakpoints, [software, read, access]);
    assert_eq!(run.done, Done::Lost { running: false });
}

#[test]
fn long_watches_are_cut_into_pieces_or_refused_whole() {
    let run = packets(&["Z2,100c,c", "k"], vec![]);
    let lens: Vec<_> = run.breakpoints.iter().map(|at| (at.address.0, at.kind)).collect();
    let (four, eight) = (BreakKind::Write { len: 4 }, BreakKind::Write { len: 8 });
    assert_eq!(lens, [(0x100c, four), (0x1010, eight)]);
    for packet in ["Z2,1000,28", "Z2,1001,1f", "Z2,1000,0", "Z2,ffffffffffffffff,2"] {
        let run = packets(&[packet, "k"], vec![]);
        assert_eq!(run.answers[0], "E16", "{packet}");
        assert_eq!(run.breakpoints, [], "{packet}");
    }
    let run = packets(&["Z2,1000,10", "Z2,1010,18", "z2,1000,10", "k"], vec![]);
    assert_eq!((run.answers[1].as_str(), &run.breakpoints[..]), ("E16", &[][..]));
}

#[test]
fn a_running_guest_is_interrupted() {
    let mut says = framed("c");
    says.push(3);
    says.extend(framed("D"));
    let run = talk(says, vec![]);
    assert_eq!(run.answers, ["S02", "OK"]);
    assert_eq!((run.done, run.detached), (Done::Detached, true));
}

#[test]
fn ranges_are_stepped_through() {
    let run = packets(&["vCont;r1000,1004:1", "k"], vec![]);
    assert_eq!(run.entries.len(), 4);
    assert_eq!(run.answers[0], "S05");
}

#[test]
fn both_commands_to_kill_are_answered() {
    for packet in ["k", "vKill;1"] {
        let run = packets(&["QStartNoAckMode", packet], vec![]);
        assert_eq!((run.done, run.answers), (Done::Killed, vec!["OK".into(), "OK".into()]));
    }
}

#[test]
fn a_debugger_that_hangs_up() {
    let run = packets(&["?"], vec![]);
    assert_eq!((run.done, run.detached), (Done::Lost { running: false }, false));
    let run = packets(&["c"], vec![]);
    assert_eq!((run.done, run.detached), (Done::Lost { running: true }, true));
}

#[test]
fn commands_that_mean_nothing_end_nothing() {
    for packet in
        ["", "Zz", "Z0", "m", "mx,1", "M1000,4", "G00", "Hg", "vCont;x", "\u{7f}", "qXfer:x"]
    {
        let run = packets(&[packet, "?", "k"], vec![]);
        assert_eq!(run.done, Done::Killed, "{packet}");
        assert!(run.answers.iter().any(|answer| answer.starts_with("T05")), "{packet}");
    }
    let mut says = b"---$x#00\x03".to_vec();
    says.extend(framed("k"));
    assert_eq!(talk(says, vec![]).done, Done::Killed);
    // What is no packet does, and what follows it is not heard.
    let mut says = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    says.extend(framed("k"));
    assert_eq!(talk(says, vec![]).done, Done::Lost { running: false });
}

/// A command that a stranger might make up.
fn command() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec![
        "",
        "?",
        "c",
        "s",
        "g",
        "G",
        "m",
        "M",
        "X",
        "Z0,",
        "z1,",
        "Z4,",
        "vCont;",
        "qSupported:",
        "qXfer:features:read:",
        "H",
        "D",
        "T",
        "p",
        "P",
        "vRun;",
        "QStartNoAckMode",
        "R",
        "!",
    ]);
    let rest = prop_oneof![
        "[0-9a-f]{0,17}[,;:=]?[0-9a-f]{0,17}[,;:]?[0-9a-f]{0,8}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    (start, rest).prop_map(|(start, rest)| {
        let body = [start.as_bytes(), &rest].concat();
        let end = format!("#{:02x}", sum(&body));
        [b"$", &body[..], end.as_bytes()].concat()
    })
}

proptest! {
    /// Whatever a peer says, the session ends in one of its ways.
    #[test]
    fn no_peer_breaks_a_session(
        commands in prop::collection::vec(
            prop_oneof![command(), prop::collection::vec(any::<u8>(), 0..60), Just(vec![3])],
            0..12,
        )
    ) {
        let io = Stop::Exit(VmExit::Io { port: 1, size: 4, write: None });
        let mut says = commands.concat();
        // A packet of another kind would make the script's `hears` no text.
        says.retain(u8::is_ascii);
        talk(says, vec![io, Stop::Step]);
    }
}
