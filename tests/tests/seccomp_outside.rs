//! The tender under somebody else's system call filter, made for upstream's.

use system_tests::environment::skip;
use system_tests::{Scratch, Tender, filter};

fn filtered(tender: Tender) -> Tender {
    tender.prepare(|command| filter::trap_all_but(command, &filter::URUNC))
}

/// Which backend runs here, by the tender's own word.
fn has_kvm() -> bool {
    Tender::new("hello").option("-v").run().stderr.contains("backend: kvm ")
}

#[test]
fn what_needs_no_guest_works() {
    let version = filtered(Tender::bare().option("--version")).run();
    version.assert_ends(0, "ABI version 2\n");
    let missing = filtered(Tender::bare()).run();
    missing.assert_ends(1, "Missing KERNEL operand");
}

#[test]
fn kvm_runs_guests() {
    if !has_kvm() {
        return skip("kvm_runs_guests", "the backend is not KVM");
    }
    let hello = filtered(Tender::new("hello").args(["a", "b"])).run();
    hello.assert_success();
    assert_eq!(hello.stderr, "", "nothing to complain of");
    let scratch = Scratch::new();
    let disk = scratch.zeroes("disk", 1 << 20);
    filtered(Tender::new("block").block("storage", &disk)).run().assert_success();
    filtered(Tender::new("clock")).run().assert_success();
    let abort = filtered(Tender::new("hostile").args(["ud2"])).run();
    abort.assert_ends(255, "trap: type=#UD");
}

/// It cannot start the guest's process there, and says so.
#[test]
fn the_sandbox_says_why_it_cannot() {
    let tender = Tender::new("hello").option("--backend=sandbox");
    let run = filtered(tender).run();
    assert_eq!(run.status, Some(1), "{run:#?}");
    assert!(run.stdout.is_empty() && run.stderr.lines().count() == 1, "{run:#?}");
}
