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
