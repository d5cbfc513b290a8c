//! `--stats`: counters as JSON.

use std::fs;
use system_tests::{Scratch, Tender};

#[test]
fn counters_are_one_json_object() {
    let scratch = Scratch::new();
    let file = scratch.join("stats.json");
    let option = format!("--stats={}", file.display());
    Tender::new("hello").option(option).run().assert_success();
    let text = fs::read_to_string(&file).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(json["hypercalls"]["puts"]["calls"].as_u64() > Some(0), "{text}");
    assert!(json["hypercalls"]["puts"]["bytes"].as_u64() > Some(10), "{text}");
    assert_eq!(json["hypercalls"]["halt"]["calls"].as_u64(), Some(1), "{text}");
    assert!(json["boot_ns"].as_u64() > Some(0), "{text}");
    let to_output = Tender::new("hello").option("--stats=-").run();
    let last = to_output.stdout.lines().last().unwrap_or_default();
    assert!(serde_json::from_str::<serde_json::Value>(last).is_ok(), "{to_output:#?}");
}

#[test]
fn counters_can_be_asked_for_while_the_guest_runs() {
    let scratch = Scratch::new();
    let file = scratch.join("stats.json");
    let option = format!("--stats={}", file.display());
    let mut running = Tender::new("hostile").option(option).args(["spin"]).spawn();
    running.expect("spin");
    running.signal(10);
    let mut text = String::new();
    for _ in 0..2000 {
        text = fs::read_to_string(&file).unwrap_or_default();
        if text.ends_with('\n') {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    running.signal(15);
    running.finish().assert_ends(1, "Exiting on signal 15");
}

/// What lies at the file's path is never written through, and never an input.
#[test]
fn counters_destroy_nothing() {
    let scratch = Scratch::new();
    let (precious, link) = (scratch.join("precious"), scratch.join("link"));
    fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, &link).unwrap();
    let run = |path: &std::path::Path| {
        Tender::new("hello").option(format!("--stats={}", path.display())).run()
    };
    assert!(run(&link).stderr.contains("symbolic link"));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    let kernel = scratch.join("kernel");
    fs::copy(system_tests::unikernel("hello"), &kernel).unwrap();
    let before = fs::metadata(&kernel).unwrap().len();
    let option = format!("--stats={}", kernel.display());
    let refused = Tender::of(&kernel).option(option).run();
    assert!(refused.stderr.contains("also an input"), "{refused:#?}");
    assert_eq!(fs::metadata(&kernel).unwrap().len(), before);
    // A hard link elsewhere stays as it was: the name is what is replaced.
    let hard = scratch.join("hard");
    fs::hard_link(&precious, &hard).unwrap();
    run(&hard).assert_success();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert!(fs::read_to_string(&hard).unwrap().starts_with('{'));
}
