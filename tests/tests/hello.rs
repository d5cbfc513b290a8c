//! A unikernel that says hello: output, arguments, many at once.

use std::io::Read;
use std::thread;
use std::time::Duration;
use system_tests::Tender;
use system_tests::processes::stop_and_continue;

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

/// Ctrl-Z and `fg`, a frozen cgroup, a debugger: a tender that was stopped goes on as if nothing had
/// been, also one that waits for a console that takes nothing at the moment.
#[test]
fn a_tender_that_is_stopped_goes_on() {
    let mut sleeping = Tender::new("clock").args(["sleep", "3000"]).spawn();
    let mut stops = 0;
    while stops < 20 && sleeping.ended().is_none() {
        stop_and_continue(sleeping.pid());
        stops += 1;
        thread::sleep(Duration::from_millis(20));
    }
    assert!(stops > 0);
    sleeping.finish().assert_success();

    let (mut reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    let mut waiting = Tender::new("clock")
        .args(["bench", "puts", "10000"])
        .prepare(|command| {
            command.stdout(writer);
        })
        .spawn_without_output();
    let capacity = rustix::pipe::fcntl_getpipe_size(&reader).unwrap();
    // It writes whole lines, of which the last one may not fit.
    while rustix::io::ioctl_fionread(&reader).unwrap() + 4096 < capacity as u64 {
        thread::yield_now();
    }
    for _ in 0..20 {
        stop_and_continue(waiting.pid());
        // It sleeps most of the time, a millisecond at once.
        thread::sleep(Duration::from_millis(5));
    }
    assert!(waiting.ended().is_none(), "{:?}", waiting.finish());
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    assert!(all.ends_with("SUCCESS\n"), "{all}");
    let run = waiting.finish();
    assert_eq!(run.status, Some(0), "{run:#?}");
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
