//! Time in a guest: its own checks, and that a sleeping guest takes no CPU.

use std::time::{Duration, Instant};
use system_tests::Tender;

#[test]
fn clocks_and_waits() {
    Tender::new("clock").run().assert_success();
}

#[test]
fn a_wait_lasts_as_long_as_asked() {
    let start = Instant::now();
    Tender::new("clock").args(["sleep", "700"]).run().assert_success();
    assert!(start.elapsed() >= Duration::from_millis(690), "{:?}", start.elapsed());
}

/// The kernel counts in ticks of 10 ms; a guest that spins for 2 s would take 200.
#[test]
fn a_waiting_guest_takes_no_cpu() {
    let mut run = Tender::new("clock").args(["sleep", "2000"]).spawn();
    std::thread::sleep(Duration::from_millis(1500));
    let ticks = system_tests::processes::cpu_ticks_of_group(run.pid());
    assert!(run.ended().is_none(), "it still waits");
    assert!(ticks < 75, "{ticks} ticks of CPU in 1.5 s");
    run.finish().assert_success();
}

#[test]
fn every_timed_hypercall_can_be_repeated() {
    for what in ["walltime", "poll", "monotonic", "puts"] {
        let run = Tender::new("clock").args(["bench", what, "1000"]).run();
        run.assert_success();
        assert!(run.stdout.contains(&format!("\n{what}: ")), "{run:#?}");
    }
}
