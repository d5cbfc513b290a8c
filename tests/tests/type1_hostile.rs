//! Guest operating systems that misbehave in a whole machine: it goes on, or ends with one clear
//! line; and one that never ends by itself ends by a signal, in bounded time.
//!
//! `tests/kernel` lists its misdeeds; a new one that this test does not place in a group fails it.

use std::thread;
use std::time::{Duration, Instant};
use system_tests::test_kernel::{can_run, machine};
use system_tests::{Outcome, Scratch};

/// A signal ends any machine within this time, also on an emulated one.
const PROMPT: Duration = Duration::from_secs(30);

/// Misdeeds after which the kernel goes on, by what a machine is booted for: a boot costs seconds
/// in an emulated machine, and so do thousands of exits.
const SURVIVED: [&[&str]; 5] = [
    &["cpuid", "control", "hypercalls", "nested", "modes", "nmi"],
    &["self-modify", "page-tables", "beyond"],
    &["msr-read", "msr-write", "rings", "pci"],
    &["chips", "long-strings"],
    &["ports"],
];

/// Misdeeds that the machine may not outlive. KVM gives a machine up in which a processor has sent
/// itself system management interrupts without a handler; QEMU's emulated SVM loses a debug
/// exception, and the triple fault that comes of it resets the machine, again and again.
const DEADLY: [&str; 2] = ["ipi", "debug"];

/// Misdeeds that never end by themselves.
const ENDLESS: [&str; 6] = ["triple", "spin", "halt", "exceptions", "nmi-spin", "ipi-spin"];

fn run(vcpus: u32, cmdline: &str) -> Outcome {
    machine(&Scratch::new(), vcpus, cmdline).run()
}

/// What a machine may say of itself: nothing, or one line.
fn assert_clear(run: &Outcome) {
    let ended = match run.status {
        Some(0) => run.stderr.is_empty() && run.stdout.contains("test-kernel: end"),
        Some(1) => run.stderr.trim_end().lines().count() == 1 && run.complaints().len() == 1,
        _ => false,
    };
    assert!(ended, "{run:#?}");
}

/// The misdeeds of a group were done, and the guest came to its own end.
fn assert_survived(vcpus: u32, group: &[&str]) {
    let run = run(vcpus, &format!("do={}", group.join(",")));
    assert_clear(&run);
    for name in group {
        assert!(run.stdout.contains(&format!("done {name}")), "{name}: {run:#?}");
    }
    assert_eq!(run.status, Some(0), "{run:#?}");
}

#[test]
fn every_misdeed_is_known_here() {
    if !can_run("every_misdeed_is_known_here") {
        return;
    }
    let run = run(1, "do=list");
    assert_clear(&run);
    for line in run.stdout.lines() {
        let known = match line.trim().split_once(' ') {
            Some((name, "returns")) => {
                DEADLY.contains(&name) || SURVIVED.iter().any(|group| group.contains(&name))
            }
            Some((name, "last")) => ENDLESS.contains(&name),
            _ => true,
        };
        assert!(known, "`{line}' is in no group of this test");
    }
}

#[test]
fn one_processor_misbehaves() {
    if can_run("one_processor_misbehaves") {
        SURVIVED.iter().for_each(|group| assert_survived(1, group));
    }
}

#[test]
fn one_of_three_processors_misbehaves() {
    if can_run("one_of_three_processors_misbehaves") {
        SURVIVED.iter().for_each(|group| assert_survived(3, group));
    }
}

#[test]
fn what_a_machine_may_not_outlive_ends_it_clearly() {
    if !can_run("what_a_machine_may_not_outlive_ends_it_clearly") {
        return;
    }
    for (vcpus, name) in [1, 3].into_iter().zip(DEADLY) {
        let scratch = Scratch::new();
        let command = format!("do={name}");
        let mut running = machine(&scratch, vcpus, &command).spawn();
        running.expect(&format!("begin {name}"));
        let start = Instant::now();
        while running.ended().is_none() && start.elapsed() < PROMPT {
            thread::sleep(Duration::from_millis(50));
        }
        if running.ended().is_none() {
            running.signal(15);
        }
        assert_clear(&running.finish_within(PROMPT));
    }
}

#[test]
fn a_signal_ends_what_never_ends() {
    if !can_run("a_signal_ends_what_never_ends") {
        return;
    }
    for (vcpus, name) in [1, 3, 1, 3, 1, 3].into_iter().zip(ENDLESS) {
        let scratch = Scratch::new();
        let mut running = machine(&scratch, vcpus, &format!("do={name}")).spawn();
        running.expect(&format!("begin {name}"));
        running.signal(15);
        let run = running.finish_within(PROMPT);
        run.assert_ends(1, "Exiting on signal 15");
        assert_clear(&run);
    }
}

/// A signal that comes while the machine is still being made is not lost.
#[test]
fn a_signal_ends_what_has_not_begun() {
    if !can_run("a_signal_ends_what_has_not_begun") {
        return;
    }
    for _ in 0..5 {
        let scratch = Scratch::new();
        let mut running = machine(&scratch, 1, "do=spin").spawn();
        while !blocks(running.pid(), 15) && running.ended().is_none() {
            std::thread::yield_now();
        }
        running.signal(15);
        running.finish_within(PROMPT).assert_ends(1, "Exiting on signal 15");
    }
}

/// Whether a process blocks a signal (proc(5), `SigBlk`).
fn blocks(pid: u32, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (signal - 1) != 0)
}

/// A reset loads the kernel again, behind all walls.
#[test]
fn a_reset_starts_the_kernel_again() {
    if !can_run("a_reset_starts_the_kernel_again") {
        return;
    }
    for end in ["reset", "triple"] {
        let scratch = Scratch::new();
        let mut running = machine(&scratch, 1, &format!("end={end}")).spawn();
        running.expect("test-kernel: end\ntest-kernel: ");
        running.signal(15);
        running.finish_within(PROMPT).assert_ends(1, "Exiting on signal 15");
    }
}
