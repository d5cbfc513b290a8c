//! What a parent hands down does not change how a unikernel runs and ends.

use std::process::Command;
use system_tests::{Outcome, Scratch, Tender, limits};

/// Every signal that can be ignored, but for SIGPIPE, whose meaning is documented.
fn all_signals() -> Vec<i32> {
    (1..=64).filter(|&signal| signal != libc::SIGPIPE).collect()
}

fn run(change: impl FnOnce(&mut Command) + 'static) -> (Outcome, String) {
    let scratch = Scratch::new();
    let file = scratch.join("stats.json");
    let option = format!("--stats={}", file.display());
    let run = Tender::new("hello").option(option).prepare(change).run();
    (run, std::fs::read_to_string(file).unwrap_or_default())
}

#[test]
fn a_guest_ends_as_it_should_whatever_is_handed_down() {
    type Change = fn(&mut Command);
    let changes: [(&str, Change); 5] = [
        ("SIGCHLD ignored", |command| limits::ignore(command, vec![libc::SIGCHLD])),
        ("all signals ignored", |command| limits::ignore(command, all_signals())),
        ("all signals blocked", limits::block_all),
        ("SIGPIPE ignored", |command| limits::ignore(command, vec![libc::SIGPIPE])),
        ("no environment", |command| {
            command.env_clear();
        }),
    ];
    for (what, change) in changes {
        let (run, stats) = run(change);
        assert_eq!(run.status, Some(0), "{what}: {run:#?}");
        assert!(run.stdout.contains("SUCCESS"), "{what}: {run:#?}");
        assert!(stats.starts_with('{') && stats.ends_with("}\n"), "{what}: {stats:?}");
    }
}

#[test]
fn counters_are_written_under_a_umask_that_takes_everything() {
    let (run, _) = run(limits::strict_umask);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
}

#[test]
fn signals_that_were_blocked_or_ignored_end_the_guest() {
    for block in [false, true] {
        let mut running = Tender::new("hostile")
            .args(["spin"])
            .prepare(move |command| match block {
                true => limits::block_all(command),
                false => limits::ignore(command, all_signals()),
            })
            .spawn();
        running.expect("spin");
        running.signal(libc::SIGTERM);
        let run = running.finish();
        assert_eq!(run.status, Some(1), "{run:#?}");
        assert!(run.stderr.contains("Exiting on signal 15"), "{run:#?}");
    }
}

/// The standard library panics where a child that it could not start cannot be waited for either.
#[test]
fn a_missing_passt_is_an_error() {
    for ignored in [vec![], vec![libc::SIGCHLD]] {
        let run = Tender::new("net")
            .net("service0", "user")
            .prepare(move |command| {
                limits::ignore(command, ignored);
                command.env("PATH", "/nowhere");
            })
            .run();
        assert_eq!((run.status, run.signal), (Some(1), None), "{run:#?}");
        assert!(run.stderr.contains("needs the program passt"), "{run:#?}");
    }
}

/// What cannot help is not advised.
#[test]
fn limits_are_told_as_what_they_are() {
    let run = Tender::new("hello").prepare(|c| limits::limit_file_size(c, 1 << 20)).run();
    // Guest memory on KVM is no file.
    if run.status != Some(0) {
        assert_eq!(run.status, Some(1), "{run:#?}");
        assert!(run.stderr.contains("raise `ulimit -f`"), "{run:#?}");
        assert!(!run.stderr.contains("--mem"), "{run:#?}");
    }
    let mut refused = 0;
    // With fewer a dynamic build is not even loaded.
    for number in 4..40 {
        let run = Tender::new("hello").prepare(move |c| limits::limit_descriptors(c, number)).run();
        if run.status != Some(0) {
            refused += 1;
            assert_eq!(run.status, Some(1), "{number}: {run:#?}");
            assert!(run.stderr.contains("open files"), "{number}: {run:#?}");
            assert!(!run.stderr.contains("--mem"), "{number}: {run:#?}");
        }
    }
    assert!((1..30).contains(&refused), "{refused}");
}

#[test]
fn a_fifo_is_no_image_and_is_not_waited_for() {
    let scratch = Scratch::new();
    let fifo = scratch.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    Tender::of(&fifo).run().assert_ends(1, "this is a FIFO");
    Tender::new("block").block("storage", &fifo).run().assert_ends(1, "this is a FIFO");
}

/// As solo5-hvt ends and solo5-spt goes on; each can be asked for.
#[test]
fn a_reader_of_the_console_that_goes_away_ends_the_guest_unless_sigpipe_is_ignored() {
    for (ignored, option, goes_on) in [
        (false, None, false),
        (true, None, true),
        (false, Some("--console-gone=continue"), true),
        (true, Some("--console-gone=end"), false),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = Tender::new("hello")
            .options(option)
            .prepare(move |command| {
                command.stdout(writer);
                limits::ignore(command, Vec::from_iter(ignored.then_some(libc::SIGPIPE)));
            })
            .run_without_output();
        let what = format!("{ignored} {option:?}: {run:#?}");
        assert_eq!(run.status, Some(i32::from(!goes_on)), "{what}");
        assert!(run.stderr.contains("writing to the console: Broken pipe"), "{what}");
        assert_eq!(run.stderr.contains("is dropped"), goes_on, "{what}");
    }
}
