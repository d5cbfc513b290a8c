//! `--gdb` as people use it: with Debian's gdb.

use system_tests::debugger::Gdb;
use system_tests::environment::skip;
use system_tests::remote::free_port;
use system_tests::{Outcome, Running, Tender, processes, unikernel};

/// A tender that waits, and a gdb that will connect; none where this machine has no gdb.
fn start(test: &str, name: &str, args: &[&str]) -> Option<(Running, Gdb)> {
    let port = free_port();
    let Some(gdb) = Gdb::new(&unikernel(name), port) else {
        skip(test, "there is no gdb on PATH");
        return None;
    };
    let options = ["--gdb".to_owned(), format!("--gdb-port={port}")];
    let mut running = Tender::new(name).options(options).args(args).spawn();
    running.expect_error("Waiting for a debugger");
    Some((running, gdb))
}

/// The words come in this order.
fn assert_order(run: &Outcome, words: &[&str]) {
    let mut rest = &*run.stdout;
    for word in words {
        let Some((_, after)) = rest.split_once(word) else {
            panic!("no `{word}' where it should be: {run:#?}");
        };
        rest = after;
    }
}

#[test]
fn from_the_first_instruction_to_the_end() {
    let test = "from_the_first_instruction_to_the_end";
    let Some((running, gdb)) = start(test, "hello", &[]) else { return };
    let gdb = gdb.then(&[
        "set language c",
        "printf \"entry %d\\n\", $rip == (long)&_start",
        "break __unikernel_main",
        "continue",
        "printf \"main %d\\n\", $rip - (long)&__unikernel_main < 64",
        "backtrace",
        "stepi",
        "next",
        "info registers rip eflags xmm0 st0 mxcsr",
        "x/i $rip",
        "print *(char (*)[4])0x100000",
        "print *(char*)0",
        "delete",
        "continue",
    ]);
    let run = gdb.run();
    assert_order(&run, &["entry 1", "Breakpoint 1, ", "main 1", "#0 ", "_start ()"]);
    assert_order(&run, &["rip  ", "eflags  ", "xmm0  ", "st0  ", "mxcsr  ", "=> 0x"]);
    assert_order(&run, &["exited normally"]);
    assert!(run.output().contains("Cannot access memory at address 0x0"), "{run:#?}");
    running.finish().assert_success();
}

/// See the like of it in `gdb.rs` on why it steps on KVM.
#[test]
fn a_watchpoint() {
    let Some((running, gdb)) = start("a_watchpoint", "hello", &[]) else { return };
    let emulated = system_tests::backend().as_deref() == Some("kvm");
    let gdb = gdb.then(&[
        "set language c",
        "stepi 2",
        "set $slot = $rsp - 8",
        "watch *(long *)$slot",
        if emulated { "stepi" } else { "continue" },
        "delete",
        "continue",
    ]);
    let run = gdb.run();
    let words = ["Hardware watchpoint 1", "Old value = 0", "New value = ", "exited normally"];
    assert_order(&run, &words);
    running.finish().assert_success();
}

#[test]
fn a_breakpoint_register_and_a_changed_register() {
    let test = "a_breakpoint_register_and_a_changed_register";
    let Some((running, gdb)) = start(test, "hello", &[]) else { return };
    let gdb = gdb.then(&[
        "set language c",
        "hbreak __unikernel_main",
        "continue",
        "delete",
        "set $rax = 0x1234",
        "print/x $rax",
        "continue",
    ]);
    let run = gdb.run();
    let words = ["Hardware assisted breakpoint 1", "Breakpoint 1, ", "= 0x1234", "exited normally"];
    assert_order(&run, &words);
    running.finish().assert_success();
}

#[test]
fn control_c_stops_a_guest_and_kill_ends_it() {
    let test = "control_c_stops_a_guest_and_kill_ends_it";
    let Some((mut running, gdb)) = start(test, "hostile", &["spin"]) else { return };
    let gdb =
        gdb.then(&["set language c", "continue", "printf \"at %d\\n\", $rip != 0", "kill"]).spawn();
    running.expect("spin: must be");
    processes::signal(gdb.pid(), 2).unwrap();
    let run = gdb.finish();
    assert_order(&run, &["received signal SIGINT", "at 1", "killed"]);
    running.finish().assert_ends(1, "Debugger asked us to quit");
}

#[test]
fn a_guest_that_gdb_leaves_runs_on() {
    let test = "a_guest_that_gdb_leaves_runs_on";
    let Some((running, gdb)) = start(test, "hello", &[]) else { return };
    let run = gdb.then(&["break __unikernel_main", "continue", "detach"]).run();
    assert_order(&run, &["Breakpoint 1, ", "detached"]);
    let run = running.finish();
    run.assert_success();
    run.assert_ends(0, "Debugger detached");
}

#[test]
fn a_fault_is_a_signal_that_can_be_looked_at() {
    let test = "a_fault_is_a_signal_that_can_be_looked_at";
    let Some((running, gdb)) = start(test, "hostile", &["triple-fault"]) else { return };
    let run = gdb.then(&["continue", "info registers rip", "continue"]).run();
    assert_order(&run, &["received signal SIGSEGV", "rip  ", "terminated with signal SIGSEGV"]);
    assert!(run.output().contains("triple fault: "), "{run:#?}");
    running.finish().assert_ends(1, "triple fault: ");
}
