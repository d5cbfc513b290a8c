//! `tsc_khz` in a description of a whole machine: had, or refused with the host's frequency, by
//! which it then is had.

use system_tests::{Outcome, Scratch, test_kernel};

/// No machine's TSC is so slow: 100 MHz.
const SLOW: &str = "tsc_khz = 100000";

fn run(line: &str) -> Outcome {
    test_kernel::tuned_on("kvm", &Scratch::new(), line, "do=cpuid").run()
}

/// The host's frequency as the refusal tells it.
fn told(run: &Outcome) -> &str {
    let (_, rest) = run.stderr.split_once("write tsc_khz = ").unwrap_or_else(|| panic!("{run:#?}"));
    rest.split_once(',').unwrap_or_else(|| panic!("{run:#?}")).0
}

#[test]
fn type1_on_kvm_has_the_tsc_that_is_asked_for_or_is_told_which() {
    if !test_kernel::can_run("type1_on_kvm_has_the_tsc_that_is_asked_for_or_is_told_which") {
        return;
    }
    let run_slow = run(SLOW);
    if run_slow.status == Some(0) {
        // This host scales.
        return;
    }
    let host = told(&run_slow);
    let refused = format!(
        "test: `tsc_khz` of 100000 cannot be had: the host's TSC runs at {host} kHz, and this \
         processor does not scale it for guests: write tsc_khz = {host}, or leave the key out"
    );
    run_slow.assert_ends(1, &refused);
    assert_eq!(run(&format!("tsc_khz = {host}")).status, Some(0));
}
