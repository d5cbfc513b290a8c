//! Guests that misbehave: each ends by itself, with one clear line and the right status, or goes
//! on harmlessly; and the host is as it was.
//!
//! The unikernels `hostile`, `hostile-block` and `hostile-net` list their misdeeds with what must
//! come of each; the list is the table of these tests, so a new misdeed is tested as soon as it
//! exists.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;
use system_tests::{Outcome, Scratch, Tender, limits, processes};

/// A misdeed that needs an address gets one where the host's process may have something.
const HIGH: &str = "0x7f0000000000";

/// Where a reset vCPU begins: no guest has ever been there.
const RESET_VECTOR: &str = "rip=0xfff0";

/// A signal ends any guest within this time, also on an emulated machine.
const PROMPT: Duration = Duration::from_secs(20);

fn misdeeds(make: &dyn Fn() -> Tender) -> Vec<(String, String)> {
    let list = make().args(["list"]).run();
    assert_eq!(list.status, Some(0), "{list:#?}");
    let pairs = list.stdout.lines().filter_map(|line| line.split_once(' '));
    let pairs: Vec<_> = pairs.map(|(a, b)| (a.to_owned(), b.trim().to_owned())).collect();
    assert!(pairs.len() > 5, "{list:#?}");
    pairs
}

fn one_line(run: &Outcome) -> bool {
    run.status == Some(1) && run.stderr.trim_end().lines().count() == 1
}

/// Whether what happened is what the word stands for.
fn is(word: &str, run: &Outcome) -> bool {
    match word {
        "harmless" | "refused" => run.status == Some(0) && run.stdout.contains("SUCCESS"),
        "ended" => one_line(run),
        "fault" => {
            let own_handler = run.status == Some(255) && run.stdout.contains("trap: type=");
            own_handler && run.stderr.is_empty() || one_line(run)
        }
        word => panic!("the unikernel speaks of `{word}`, which this test does not know"),
    }
}

fn judge(name: &str, verdict: &str, make: &dyn Fn() -> Tender, ring: Ring) {
    let address = matches!(name, "read" | "write" | "jump").then_some(HIGH);
    let tender = make().args([name]).args(address);
    if verdict == "runs-on" {
        let mut running = tender.spawn();
        running.expect(name);
        running.signal(15);
        let run = running.finish_within(PROMPT);
        run.assert_ends(1, "Exiting on signal 15");
        return;
    }
    let run = tender.run();
    if ring != Ring::Always && run.stdout.contains("SKIPPED: no ring") {
        return;
    }
    // The ring is memory that guest and host share, right above what the guest is told of.
    let itself = matches!(name, "read-beyond" | "write-beyond");
    if ring != Ring::Never && itself && run.stdout.contains("SURVIVED") {
        return;
    }
    let matches = verdict.split("-or-").any(|word| is(word, &run));
    assert!(matches, "{name} must be {verdict}: {run:#?}");
}

/// Whether the guest has a network ring.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ring {
    Never,
    AsTheBackendLikes,
    Always,
}

/// All misdeeds of a unikernel.
fn all(make: &dyn Fn() -> Tender, ring: Ring) {
    for (name, verdict) in misdeeds(make) {
        judge(&name, &verdict, make, ring);
    }
    Tender::new("hello").run().assert_success();
}

#[test]
fn misdeeds_with_memory_ports_and_exceptions() {
    all(&|| Tender::new("hostile"), Ring::Never);
}

#[test]
fn misdeeds_with_a_disk() {
    let scratch = Scratch::new();
    let disk = scratch.zeroes("disk.img", 1 << 20);
    all(&|| Tender::new("hostile-block").block("storage", &disk), Ring::Never);
}

/// Over a socket that nobody reads: with the ring where the backend offers it, with it always,
/// and without it.
#[test]
fn misdeeds_with_a_network_and_its_ring() {
    let cases = [
        (None, Ring::AsTheBackendLikes),
        (Some("--net-ring"), Ring::Always),
        (Some("--no-net-ring"), Ring::Never),
    ];
    for (option, ring) in cases {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let make = || Tender::new("hostile-net").net_fd("service0", &theirs).options(option);
        all(&make, ring);
        drop(ours);
    }
}

/// The one line names the cause, in the words that people search for.
#[test]
fn the_line_names_the_cause() {
    for (misdeed, text) in [
        ("write-text", "host/guest translation fault: rip=0x"),
        ("hypercall-9", "Invalid guest port access: port=0x509"),
        ("port-in", "Invalid guest port access: port=0x502"),
        ("port-byte", "Invalid guest port access: port=0x502"),
        ("port-other", "Invalid guest port access: port=0xcf8"),
        (
            "puts-oob",
            "hypercall puts: 9 bytes at guest address 0x3fffff8 are outside of guest memory",
        ),
        ("puts-4g", "hypercall puts: 4294967296 bytes at guest address 0x"),
        (
            "puts-wrap",
            "hypercall puts: 32 bytes at guest address 0xfffffffffffffff0 are outside of ",
        ),
        ("arg-end", "hypercall walltime: 8 bytes at guest address 0x3fffffc are outside of guest "),
        ("arg-text", "may not be written"),
        ("halt-bad-cookie", "hypercall halt: 512 bytes at guest address 0x3fffe01 are outside of "),
        ("hlt", "the guest executed hlt and would sleep for ever"),
        ("triple-fault", "triple fault: "),
        ("no-handler", "triple fault: "),
    ] {
        let run = Tender::new("hostile").args([misdeed]).run();
        assert_eq!(run.complaints().len(), 1, "{run:#?}");
        assert!(!run.stderr.contains(RESET_VECTOR), "{run:#?}");
        run.assert_ends(1, text);
    }
    for (misdeed, text) in [
        ("null-read", "trap: type=#PF ec=0x0 "),
        ("null-write", "trap: type=#PF ec=0x2 "),
        ("div0", "trap: type=#DE "),
        ("ud2", "trap: type=#UD "),
        ("syscall", "trap: type=#UD "),
    ] {
        Tender::new("hostile").args([misdeed]).run().assert_ends(255, text);
    }
}

#[test]
fn an_interrupt_from_the_keyboard_ends_a_guest() {
    let mut running = Tender::new("hostile").args(["spin"]).spawn();
    running.expect("spin");
    running.signal(2);
    running.finish_within(PROMPT).assert_ends(1, "Exiting on signal 2");
}

/// Between the handler's installation and the guest's start, too.
#[test]
fn a_signal_during_the_start_is_not_lost() {
    for _ in 0..20 {
        let mut running = Tender::new("hostile").args(["spin"]).spawn();
        processes::await_handler(running.pid(), 15);
        running.signal(15);
        running.finish_within(PROMPT).assert_ends(1, "Exiting on signal 15");
    }
}

/// Neither the guest's words nor the tender's own find room there.
#[test]
fn a_signal_ends_a_guest_whose_output_nobody_reads() {
    for option in [None, Some("--stats=-")] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&vec![b'x'; limits::pipe_size(&writer)]).unwrap();
        let full = move |command: &mut Command| {
            command.stdout(writer.try_clone().unwrap()).stderr(writer);
        };
        let tender = Tender::new("hostile").args(["spin"]).options(option).prepare(full);
        let mut running = tender.spawn_without_output();
        let group = running.pid();
        processes::await_handler(group, 15);
        std::thread::sleep(Duration::from_millis(500));
        running.signal(15);
        assert_eq!(running.finish_within(PROMPT).status, Some(1));
        await_nobody(group);
        drop(reader);
    }
}

#[test]
fn a_killed_tender_leaves_no_process_behind() {
    let mut running = Tender::new("hostile").args(["spin"]).spawn();
    running.expect("spin");
    let group = running.pid();
    running.signal(9);
    running.finish();
    await_nobody(group);
}

fn await_nobody(group: u32) {
    for _ in 0..1000 {
        if processes::alive_in_group(group).is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("still alive: {:?}", processes::alive_in_group(group));
}
