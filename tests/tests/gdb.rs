//! `--gdb`: a debugger looks into a guest from its first instruction on. These tests speak the
//! protocol themselves; `gdb_program.rs` has those with the program.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use system_tests::elf::{Elf, PT_LOAD, phdr};
use system_tests::remote::{Remote, free_port};
use system_tests::{Outcome, Running, Tender, unikernel};

/// A tender that waits for a debugger.
fn waiting(name: &str, args: &[&str]) -> (Running, u16) {
    let port = free_port();
    let options = ["--gdb".to_owned(), format!("--gdb-port={port}")];
    let mut running = Tender::new(name).options(options).args(args).spawn();
    running.expect_error("Waiting for a debugger. Connect to it like this:");
    running.expect_error(&format!("gdb --ex=\"target remote localhost:{port}\" KERNEL"));
    (running, port)
}

fn start(name: &str, args: &[&str]) -> (Running, Remote) {
    let (running, port) = waiting(name, args);
    (running, Remote::connect(port))
}

fn stopped(answer: &str) -> bool {
    answer.starts_with("T05") || answer.starts_with("S05")
}

/// It ended well, with these last words about its debugger.
fn assert_ended(run: &Outcome, status: i32, words: &str) {
    assert_eq!(run.status, Some(status), "{run:#?}");
    let last = run.stderr.lines().last().unwrap_or_default();
    assert!(last.contains(words), "{run:#?}");
}

const CONNECTED: &str = "Connection from debugger at 127.0.0.1";

#[test]
fn a_guest_waits_at_its_first_instruction() {
    let (running, mut gdb) = start("hello", &[]);
    assert!(stopped(&gdb.ask("?")));
    let elf = Elf::read(&unikernel("hello"));
    assert_eq!(gdb.rip(), elf.size(24) as u64, "e_entry");
    let text = elf.headers(PT_LOAD)[0];
    let (at, address) = (elf.size(text + phdr::OFFSET), elf.size(text + phdr::VADDR) as u64);
    assert_eq!(gdb.memory(address, 64), elf.bytes[at..at + 64]);
    assert_eq!(gdb.ask("c"), "W00");
    let run = running.finish();
    assert_ended(&run, 0, CONNECTED);
    assert!(run.stdout.contains("SUCCESS"), "{run:#?}");
}

/// Start-up is the same each time: what one guest reaches by single steps, another reaches too.
#[test]
fn breakpoints_and_single_steps() {
    let (running, mut gdb) = start("hello", &[]);
    let entry = gdb.rip();
    for _ in 0..20 {
        assert!(stopped(&gdb.ask("s")));
    }
    let there = gdb.rip();
    assert_ne!(there, entry);
    assert_eq!(gdb.ask("vKill;1"), "OK");
    assert_ended(&running.finish(), 1, "Debugger asked us to quit");

    let (running, mut gdb) = start("hello", &[]);
    let before = gdb.memory(there, 16);
    assert_eq!(gdb.ask(&format!("Z0,{there:x},1")), "OK");
    assert!(stopped(&gdb.ask("c")));
    assert_eq!(gdb.rip(), there);
    assert_eq!(gdb.memory(there, 16), before, "the breakpoint does not show in memory");
    assert_eq!(gdb.ask(&format!("z0,{there:x},1")), "OK");
    assert_eq!(gdb.ask("c"), "W00");
    assert_ended(&running.finish(), 0, CONNECTED);
}

#[test]
fn a_breakpoint_at_a_symbol_by_a_register_of_the_processor() {
    let (running, mut gdb) = start("hello", &[]);
    let main = Elf::read(&unikernel("hello")).symbol("__unikernel_main");
    assert_eq!(gdb.ask(&format!("Z1,{main:x},1")), "OK");
    assert!(gdb.ask("c").starts_with("T05thread:01;hwbreak:"));
    assert_eq!(gdb.rip(), main);
    assert_eq!(gdb.ask(&format!("z1,{main:x},1")), "OK");
    assert_eq!(gdb.ask("c"), "W00");
    running.finish();
}

/// The first thing that `_start` does with its stack is to push a return address. Where the test
/// machine is emulated, only a step finds it: QEMU's SVM loses breakpoint registers when its guest
/// leaves, also solo5-hvt's.
#[test]
fn a_watchpoint_stops_behind_the_access() {
    let (running, mut gdb) = start("hello", &[]);
    for _ in 0..2 {
        gdb.ask("s");
    }
    let (call, stack) = (gdb.rip(), gdb.registers()[7] - 8);
    assert_eq!(gdb.memory(stack, 8), [0; 8]);
    assert_eq!(gdb.ask(&format!("Z2,{stack:x},8")), "OK");
    let emulated = system_tests::backend().as_deref() == Some("kvm");
    let answer = gdb.ask(if emulated { "s" } else { "c" });
    assert!(answer.starts_with(&format!("T05thread:01;watch:{stack:x};")), "{answer}");
    assert_ne!(gdb.rip(), call);
    let returns = u64::from_le_bytes(gdb.memory(stack, 8).try_into().unwrap());
    assert!((call + 2..call + 8).contains(&returns), "{returns:#x} is not behind {call:#x}");
    assert_eq!(gdb.ask(&format!("z2,{stack:x},8")), "OK");
    assert_eq!(gdb.ask("c"), "W00");
    running.finish();
}

/// `mov edx, 0x502; out dx, eax`: where hello prints.
fn prints(elf: &Elf) -> u64 {
    let text = elf.headers(PT_LOAD)[0];
    let (at, size) = (elf.size(text + phdr::OFFSET), elf.size(text + phdr::FILESZ));
    let site = [0xba, 0x02, 0x05, 0, 0, 0xef];
    let found = elf.bytes[at..at + size].windows(site.len()).position(|code| code == site);
    (elf.size(text + phdr::VADDR) + found.expect("a hypercall") + 5) as u64
}

#[test]
fn a_step_over_a_hypercall_is_one_step() {
    let (mut running, mut gdb) = start("hello", &[]);
    let out = prints(&Elf::read(&unikernel("hello")));
    assert_eq!(gdb.ask(&format!("Z0,{out:x},1")), "OK");
    assert!(stopped(&gdb.ask("c")));
    let before = gdb.registers();
    assert!(stopped(&gdb.ask("s")));
    let after = gdb.registers();
    running.expect("Hello, World");
    assert_eq!(after[16], out + 1);
    assert_eq!(after[..16], before[..16], "a hypercall changes no register");
    assert_eq!(gdb.ask(&format!("z0,{out:x},1")), "OK");
    assert_eq!(gdb.ask("c"), "W00");
    running.finish();
}

#[test]
fn registers_and_memory_are_set() {
    let (running, mut gdb) = start("hello", &[]);
    let elf = Elf::read(&unikernel("hello"));
    // jmp to itself, in the guest's protected text; then back.
    let entry = elf.size(24) as u64;
    let code = gdb.memory(entry, 2);
    assert_eq!(gdb.ask(&format!("M{entry:x},2:ebfe")), "OK");
    assert!(stopped(&gdb.ask("s")));
    assert_eq!(gdb.rip(), entry);
    assert_eq!(gdb.ask(&format!("M{entry:x},2:{:02x}{:02x}", code[0], code[1])), "OK");
    let registers = gdb.ask("g");
    let changed = format!("{}{}", "1122334455667788", &registers[16..]);
    assert_eq!(gdb.ask(&format!("G{changed}")), "OK");
    assert_eq!(gdb.registers()[0], 0x8877_6655_4433_2211);
    assert_eq!(gdb.ask("c"), "W00");
    running.finish();
}

#[test]
fn what_is_no_memory_is_an_error_of_the_debugger() {
    let (running, mut gdb) = start("hello", &[]);
    for packet in ["mffffffffffffff00,100", "m100000000,8", "M0,1:00", "m4000000,1", "Z0,0,1"] {
        let answer = gdb.ask(packet);
        assert!(answer.starts_with('E'), "{packet}: {answer}");
    }
    assert_eq!(gdb.ask("c"), "W00");
    running.finish();
}

#[test]
fn a_guest_that_spins_or_sleeps_is_interrupted() {
    for (name, args, sign) in
        [("hostile", &["spin"][..], "spin: must be"), ("clock", &["sleep", "1000000"], "")]
    {
        let (mut running, mut gdb) = start(name, args);
        gdb.tell("c");
        running.expect(sign);
        let answer = gdb.interrupt();
        assert!(answer.starts_with("S02") || answer.starts_with("T02"), "{name}: {answer}");
        assert_ne!(gdb.rip(), 0);
        // It can be done again.
        gdb.tell("c");
        assert_eq!(gdb.interrupt(), answer, "{name}");
        assert_eq!(gdb.ask("D"), "OK");
        running.expect_error("Debugger detached");
        running.signal(15);
        assert_ended(&running.finish(), 1, "Exiting on signal 15");
    }
}

#[test]
fn a_guest_that_is_left_alone_runs_to_its_end() {
    let (running, mut gdb) = start("hello", &[]);
    let main = Elf::read(&unikernel("hello")).symbol("__unikernel_main");
    assert_eq!(gdb.ask(&format!("Z0,{main:x},1")), "OK");
    assert!(stopped(&gdb.ask("s")));
    assert_eq!(gdb.ask("D"), "OK");
    let run = running.finish();
    assert_ended(&run, 0, "Debugger detached");
    assert!(run.stdout.contains("SUCCESS"), "{run:#?}");
}

#[test]
fn a_status_and_a_fault_are_told() {
    let (running, mut gdb) = start("hostile", &["no such misdeed"]);
    let status = gdb.ask("c");
    let run = running.finish();
    assert_eq!(status, format!("W{:02x}", run.status.unwrap()), "{run:#?}");
    assert_ne!(run.status, Some(0));

    let (running, mut gdb) = start("hostile", &["triple-fault"]);
    let words = gdb.ask("c");
    let text = words.strip_prefix('O').expect("output").as_bytes().chunks(2);
    let text: String = text
        .map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap() as char)
        .collect();
    assert_eq!(gdb.hear(), "S0b");
    gdb.registers();
    assert!(!gdb.memory(0x10_0000, 16).is_empty());
    assert_eq!(gdb.ask("c"), "X0b");
    let run = running.finish();
    assert_ended(&run, 1, text.trim_end());
}

#[test]
fn signals_end_the_tender() {
    for runs in [false, true] {
        let (mut running, mut gdb) = start("hostile", &["spin"]);
        gdb.ask("?");
        if runs {
            gdb.tell("c");
            running.expect("spin: must be");
        }
        running.signal(2);
        assert_ended(&running.finish(), 1, "Exiting on signal 2");
    }
    let (mut running, _) = waiting("hello", &[]);
    running.signal(15);
    assert_ended(&running.finish(), 1, "Exiting on signal 15");
}

/// A debugger that goes away leaves a guest that runs, or none; never one that hangs.
#[test]
fn a_debugger_that_goes_away() {
    let (running, mut gdb) = start("hello", &[]);
    gdb.ask("?");
    drop(gdb);
    assert_ended(&running.finish(), 1, "could not receive the next command");

    let (mut running, mut gdb) = start("hostile", &["spin"]);
    gdb.tell("c");
    running.expect("spin: must be");
    drop(gdb);
    running.expect_error("the guest runs on without it");
    running.signal(15);
    assert_ended(&running.finish(), 1, "Exiting on signal 15");
}

#[test]
fn strangers_at_the_port_do_no_harm() {
    let (running, port) = waiting("hello", &[]);
    let call = |bytes: &[u8]| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let _silent = call(b"");
    // What a web page can make a browser send to any port of its machine.
    let mut page = call(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n$?#3f$k#6b");
    assert!(!matches!(page.read(&mut [0; 16]), Ok(1..)), "no answer, and the connection is closed");
    let _wrong = call(b"$g#00");
    let _long = call(&[b'x'; 3000]);
    let _binary = call(&[0, 0xff, b'$', 0x80, b'#', 3, 3, 3]);
    let mut gdb = Remote::connect(port);
    assert!(stopped(&gdb.ask("?")));
    for junk in [&b"-+-\x03"[..], b"$cut", b"$m#00"] {
        gdb.raw(junk);
    }
    assert!(stopped(&gdb.ask("?")), "it still listens");
    for packet in ["", "Zz", "m", "mffffffffffffffffff,1", "M100000,4", "G00", "vCont;x", "Hg"] {
        gdb.tell(packet);
    }
    gdb.tell("k");
    assert_ended(&running.finish(), 1, "Debugger asked us to quit");
}

/// In a session a byte that is no packet's ends the connection, and with it a guest that stands.
#[test]
fn what_is_no_packet_ends_the_session() {
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0", b"$?#3fx"] {
        let (running, mut gdb) = start("hello", &[]);
        assert!(stopped(&gdb.ask("?")));
        gdb.raw(junk);
        assert_ended(&running.finish(), 1, "could not receive the next command");
    }
}

#[test]
fn a_debugger_may_come_by_a_unix_socket() {
    let scratch = system_tests::Scratch::new();
    let path = scratch.join("gdb");
    let mut running = Tender::new("hello").option(format!("--gdb={}", path.display())).spawn();
    running.expect_error(&format!("target remote {}\" KERNEL", path.display()));
    let mut gdb = UnixStream::connect(&path).unwrap();
    gdb.write_all(b"+$?#3f").unwrap();
    let mut answer = [0; 5];
    gdb.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+$T05");
    gdb.write_all(b"+$D#44").unwrap();
    assert!(running.finish().stdout.contains("SUCCESS"));
    assert!(!path.exists());
}

#[test]
fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let run = Tender::new("hello").options(["--gdb", &format!("--gdb-port={port}")]).run();
    run.assert_ends(1, &format!("cannot listen on 127.0.0.1 port {port}"));
}

/// The debugger does not loosen what holds the tender and the guest.
#[test]
fn everything_stays_confined() {
    let (running, mut gdb) = start("hello", &[]);
    gdb.ask("?");
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    assert_eq!(gdb.ask("c"), "W00");
    running.finish();
}
