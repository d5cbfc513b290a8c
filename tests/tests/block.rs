//! Disks: what was written is there, and what cannot be attached says why.

use std::fs;
use system_tests::{Scratch, Tender};

#[test]
fn a_disk_is_written_and_read_back() {
    let scratch = Scratch::new();
    let disk = scratch.zeroes("disk.img", 4 << 20);
    for sector in [512, 4096] {
        let option = format!("--block-sector-size:storage={sector}");
        Tender::new("block").block("storage", &disk).option(option).run().assert_success();
    }
    assert!(fs::read(&disk).unwrap().iter().any(|&byte| byte != 0), "the guest has written");
}

#[test]
fn what_is_no_disk_is_refused() {
    let scratch = Scratch::new();
    let odd = scratch.zeroes("odd.img", 3 * 2048);
    let small = scratch.zeroes("small.img", 0);
    let attach = |path, sector: Option<&str>| {
        let option = sector.map(|bytes| format!("--block-sector-size:storage={bytes}"));
        Tender::new("block").block("storage", path).options(option).run()
    };
    attach(&odd, Some("4096")).assert_ends(1, "Backing storage size must be block aligned");
    attach(&odd, Some("521")).assert_ends(1, "Block size must be a multiple of 2");
    attach(&odd, Some("256")).assert_ends(1, "greater than or equal 512");
    attach(&small, None).assert_ends(1, "must be at least 1 block");
    let missing = scratch.join("missing.img");
    attach(&missing, None).assert_ends(1, "Could not open block device");
    Tender::new("block").run().assert_ends(1, "All declared devices must be attached");
}

/// Every block that the guest was told is written is in the file, whenever the tender dies.
#[test]
fn nothing_is_lost_when_the_tender_is_killed() {
    let scratch = Scratch::new();
    for _ in 0..3 {
        let disk = scratch.zeroes("disk.img", 4 << 20);
        let mut running =
            Tender::new("block").block("storage", &disk).args(["write", "8000"]).spawn();
        running.expect("wrote 40");
        running.signal(9);
        let output = running.finish().stdout;
        let told = output.lines().filter(|line| line.starts_with("wrote ")).count();
        let written =
            fs::read(&disk).unwrap().chunks(512).filter(|b| b.iter().any(|&x| x != 0)).count();
        assert!(told >= 40 && written >= told, "told {told}, written {written}");
    }
}

#[test]
fn a_file_that_shrinks_is_an_error_to_the_guest_and_no_more() {
    let scratch = Scratch::new();
    let disk = scratch.zeroes("disk.img", 1 << 20);
    let shrink = disk.clone();
    let running =
        Tender::new("block").block("storage", &disk).args(["bench", "read", "400000"]).spawn();
    fs::File::options().write(true).open(shrink).unwrap().set_len(0).unwrap();
    let run = running.finish();
    assert!(run.signal.is_none() && run.status.is_some(), "{run:#?}");
}
