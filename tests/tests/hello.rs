//! A unikernel that says hello: output, arguments, many at once.

use std::thread;
use system_tests::Tender;

#[test]
fn hello() {
    let run = Tender::new("hello").args(["Hello_Solo5", "two words"]).run();
    run.assert_success();
    for line in ["Hello, World", "argument 1: Hello_Solo5", "argument 2: two", "argument 3: words"]
    {
        assert!(run.stdout.lines().any(|l| l == line), "{line}: {run:#?}");
    }
    assert_eq!(run.stderr, "", "a guest that ends well leaves the tender silent");
}

#[test]
fn smallest_and_default_memory() {
    Tender::new("hello").mem(4).run().assert_success();
    Tender::bare().option(system_tests::unikernel("hello")).run().assert_success();
}

/// A guest that nobody listens to must not hang: its output has nowhere to go.
#[test]
fn output_that_is_closed_ends_the_guest() {
    let run = Tender::new("hello").prepare(|command| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer);
    });
    let run = run.run_without_output();
    assert_eq!(run.status, Some(1), "{run:#?}");
    assert_eq!(run.complaints().len(), 1, "{run:#?}");
}

/// Nor one whose output nobody takes: it waits, and a signal still ends it.
#[test]
fn output_that_is_stuck_does_not_keep_a_signal_waiting() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut running = Tender::new("clock")
        .args(["bench", "puts", "100000"])
        .prepare(|command| {
            command.stdout(writer);
        })
        .spawn_without_output();
    // More than the guest writes fits no pipe: by now it waits for room.
    thread::sleep(std::time::Duration::from_millis(500));
    running.signal(libc::SIGTERM);
    running.finish().assert_ends(1, "Exiting on signal 15");
    drop(reader);
}

#[test]
fn many_at_once() {
    let runs: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(|| {
                for _ in 0..4 {
                    Tender::new("hello").mem(32).run().assert_success();
                }
            })
        })
        .collect();
    for run in runs {
        run.join().expect("all succeed");
    }
}
