//! `--gdb`: a debugger looks into a guest from its first instruction on.

use system_tests::elf::{Elf, PT_LOAD, phdr};
use system_tests::environment::skip;
use system_tests::remote::{Remote, free_port};
use system_tests::{Running, Tender, unikernel};

/// A guest that waits for its debugger; none where this tender says that it has no server.
fn start(test: &str, name: &str, args: &[&str]) -> Option<(Running, Remote)> {
    let refused = Tender::new("hello").options(["--gdb", "--dumpcore=/nonexistent"]).run();
    if refused.stderr.contains("no debugger's server in this version") {
        skip(test, "this tender has no debugger's server yet, and says so");
        return None;
    }
    let port = free_port();
    let options = ["--gdb".to_owned(), format!("--gdb-port={port}")];
    let running = Tender::new(name).options(options).args(args).spawn();
    Some((running, Remote::connect(port)))
}

fn stopped(answer: &str) -> bool {
    answer.starts_with("T05") || answer.starts_with("S05")
}

#[test]
fn a_guest_waits_at_its_first_instruction() {
    let Some((running, mut gdb)) = start("a_guest_waits_at_its_first_instruction", "hello", &[])
    else {
        return;
    };
    assert!(stopped(&gdb.ask("?")));
    let elf = Elf::read(&unikernel("hello"));
    assert_eq!(gdb.rip(), elf.size(24) as u64, "e_entry");
    let text = elf.headers(PT_LOAD)[0];
    let (at, address) = (elf.size(text + phdr::OFFSET), elf.size(text + phdr::VADDR) as u64);
    assert_eq!(gdb.memory(address, 64), elf.bytes[at..at + 64]);
    assert_eq!(gdb.ask("c"), "W00");
    running.finish().assert_success();
}

/// Start-up is the same each time: what one guest reaches by single steps, another reaches too.
#[test]
fn breakpoints_and_single_steps() {
    let test = "breakpoints_and_single_steps";
    let Some((running, mut gdb)) = start(test, "hello", &[]) else { return };
    let entry = gdb.rip();
    for _ in 0..20 {
        assert!(stopped(&gdb.ask("s")));
    }
    let there = gdb.rip();
    assert_ne!(there, entry);
    gdb.tell("k");
    assert_eq!(running.finish().status, Some(1));

    let Some((running, mut gdb)) = start(test, "hello", &[]) else { return };
    let before = gdb.memory(there, 16);
    assert_eq!(gdb.ask(&format!("Z0,{there:x},1")), "OK");
    assert!(stopped(&gdb.ask("c")));
    assert_eq!(gdb.rip(), there);
    assert_eq!(gdb.memory(there, 16), before, "the breakpoint does not show in memory");
    assert_eq!(gdb.ask(&format!("z0,{there:x},1")), "OK");
    assert_eq!(gdb.ask("c"), "W00");
    running.finish().assert_success();
}

#[test]
fn what_is_no_memory_is_an_error_of_the_debugger() {
    let test = "what_is_no_memory_is_an_error_of_the_debugger";
    let Some((running, mut gdb)) = start(test, "hello", &[]) else { return };
    for packet in ["mffffffffffffff00,100", "m100000000,8", "M0,1:00", "m4000000,1"] {
        let answer = gdb.ask(packet);
        assert!(answer.starts_with('E'), "{packet}: {answer}");
    }
    assert_eq!(gdb.ask("c"), "W00");
    running.finish().assert_success();
}

/// A debugger that goes away leaves a guest that runs, or none; never one that hangs.
#[test]
fn a_debugger_that_goes_away() {
    let Some((running, gdb)) = start("a_debugger_that_goes_away", "hello", &[]) else { return };
    drop(gdb);
    let run = running.finish();
    assert!(matches!(run.status, Some(0 | 1)), "{run:#?}");
}
