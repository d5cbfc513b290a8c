//! Disks: what is written is there, whatever happens; what cannot be is refused in one line.

use std::fs::{self, File};
use std::path::Path;
use system_tests::elf::Elf;
use system_tests::environment::{is_root, skip};
use system_tests::namespace::{mount_tmpfs, remount_read_only, with_mounts};
use system_tests::{Outcome, Scratch, Tender, limits, unikernel};

fn block(disk: &Path) -> Tender {
    Tender::new("block").block("storage", disk)
}

/// The block that `write` gives this number.
fn numbered(k: u64, size: usize) -> Vec<u8> {
    (k + 1).to_le_bytes().repeat(size / 8)
}

#[test]
fn self_test() {
    let scratch = Scratch::new();
    block(&scratch.zeroes("disk", 4 << 20)).run().assert_success();
}

#[test]
fn sector_sizes() {
    let scratch = Scratch::new();
    for size in [512, 1024, 4096, 32768] {
        let disk = scratch.zeroes("disk", 4 << 20);
        let option = format!("--block-sector-size:storage={size}");
        let run = block(&disk).option(option).run();
        run.assert_success();
        assert!(run.stdout.contains(&format!("4194304 bytes in blocks of {size}")), "{run:#?}");
    }
}

#[test]
fn sizes_that_are_refused() {
    let scratch = Scratch::new();
    for (bytes, sector, text) in [
        (6144, 4096, "storage: Backing storage size must be block aligned"),
        (1563, 521, "Block size must be a multiple of 2"),
        (256, 256, "Block size must be a multiple of 2 greater than or equal 512"),
        (513, 512, "storage: Backing storage size must be block aligned"),
        (0, 512, "storage: Backing storage must be at least 1 block"),
    ] {
        let disk = scratch.zeroes(&format!("disk{bytes}"), bytes);
        let option = format!("--block-sector-size:storage={sector}");
        block(&disk).option(option).run().assert_ends(1, text);
    }
}

/// Its descriptor is not standard output's, nor standard error's.
#[test]
fn a_disk_is_no_console_where_the_standard_streams_are_closed() {
    let scratch = Scratch::new();
    let disk = scratch.zeroes("disk", 1 << 20);
    assert_eq!(block(&disk).prepare(limits::close_standard).run().status, Some(0));
    assert_eq!(fs::metadata(&disk).unwrap().len(), 1 << 20);
}

#[test]
fn what_was_written_is_in_the_file() {
    let scratch = Scratch::new();
    let disk = scratch.zeroes("disk", 64 << 10);
    block(&disk).args(["write", "100"]).run().assert_success();
    let bytes = fs::read(&disk).unwrap();
    assert_eq!(bytes.len(), 64 << 10, "the size is as before");
    for (k, found) in (0..128).zip(bytes.chunks(512)) {
        let wanted = if k < 100 { numbered(k, 512) } else { vec![0; 512] };
        assert!(found == wanted, "block {k}");
    }
    let run = block(&disk).args(["verify"]).run();
    assert!(run.stdout.contains("\nverified 100\n"), "{run:#?}");
}

/// Nothing that the guest was told is written may be lost when the tender dies.
#[test]
fn nothing_is_lost_by_kill_9() {
    let scratch = Scratch::new();
    for (round, until) in [1, 50, 500].into_iter().enumerate() {
        let disk = scratch.zeroes(&format!("disk{round}"), 64 << 20);
        let mut run = block(&disk).args(["write", "131072"]).spawn();
        run.expect(&format!("\nwrote {until}\n"));
        run.signal(libc::SIGKILL);
        let run = run.finish();
        assert_eq!(run.signal, Some(libc::SIGKILL), "{run:#?}");
        let whole = run.stdout.rsplit_once('\n').expect("lines").0;
        let last: u64 = whole.rsplit_once("wrote ").expect("a line").1.parse().unwrap();
        let bytes = fs::read(&disk).unwrap();
        for (k, found) in (0..=last).zip(bytes.chunks(512)) {
            assert!(found == numbered(k, 512), "block {k} of 0..={last} is lost");
        }
    }
}

#[test]
fn a_disk_can_be_a_hard_link_or_a_symbolic_one() {
    let scratch = Scratch::new();
    let disk = scratch.zeroes("disk", 1 << 20);
    std::os::unix::fs::symlink(&disk, scratch.join("link=with:signs")).unwrap();
    block(&scratch.join("link=with:signs")).run().assert_success();
}

/// The last block of a sparse file on a file system that is full.
#[test]
fn a_full_disk_is_an_error_of_the_guest() {
    if !is_root() {
        return skip("a_full_disk_is_an_error_of_the_guest", "needs root to mount");
    }
    let scratch = Scratch::new();
    let run = with_mounts(|| {
        mount_tmpfs(scratch.path(), 256 << 10).expect("a small file system");
        let disk = scratch.zeroes("disk", 1 << 20);
        let run = block(&disk).args(["write", "2048"]).run();
        let written = run.stdout.matches("wrote ").count();
        let bytes = fs::read(&disk).unwrap();
        for (k, found) in (0..written as u64).zip(bytes.chunks(512)) {
            assert!(found == numbered(k, 512), "block {k}");
        }
        assert!((1..=512).contains(&written), "{written}");
        run
    });
    let Ok(run) = run else {
        return skip("a_full_disk_is_an_error_of_the_guest", "no mount namespace here");
    };
    run.assert_ends(1, "error: refused: the host failed\n");
    told_once(&run, "block write: No space left on device");
}

/// The limit leaves room for the guest's memory, which may be a file too.
#[test]
fn a_limit_on_file_sizes_is_an_error_of_the_guest() {
    let scratch = Scratch::new();
    let disk = scratch.zeroes("disk", 16 << 20);
    let limited = |command: &mut _| limits::limit_file_size(command, 8 << 20);
    let tender = block(&disk).mem(6).option("--block-sector-size:storage=32768");
    let run = tender.args(["write", "512"]).prepare(limited).run();
    run.assert_ends(1, "error: refused: the host failed\n");
    assert_eq!(run.stdout.matches("wrote ").count(), 256, "{run:#?}");
    told_once(&run, "block write: File too large");
}

/// The guest decides what a failure means, and the person who runs it hears of it.
fn told_once(run: &Outcome, failure: &str) {
    assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
    assert!(run.stderr.contains("block device ") && run.stderr.contains(failure), "{run:#?}");
}

#[test]
fn a_file_that_shrinks_is_an_error_of_the_guest() {
    let scratch = Scratch::new();
    let disk = scratch.zeroes("disk", 1 << 20);
    let running = block(&disk).args(["bench", "read", "400000"]).spawn();
    fs::File::options().write(true).open(&disk).unwrap().set_len(0).unwrap();
    let run = running.finish();
    assert!(run.signal.is_none() && run.status.is_some(), "{run:#?}");
}

#[test]
fn a_read_only_disk_is_refused() {
    let scratch = Scratch::new();
    let name = "a_read_only_disk_is_refused";
    let check = |disk: &Path| {
        let run = block(disk).run();
        run.assert_ends(1, "Could not open block device: ");
        assert!(run.stderr.contains("disk") && run.stderr.lines().count() == 1, "{run:#?}");
    };
    if is_root() {
        let done = with_mounts(|| {
            mount_tmpfs(scratch.path(), 1 << 20).expect("a small file system");
            let disk = scratch.zeroes("disk", 1 << 19);
            remount_read_only(scratch.path()).expect("read-only");
            check(&disk);
        });
        done.unwrap_or_else(|_| skip(name, "no mount namespace here"));
    } else {
        let disk = scratch.zeroes("disk", 1 << 19);
        let file = File::open(&disk).unwrap();
        let mut mode = file.metadata().unwrap().permissions();
        mode.set_readonly(true);
        file.set_permissions(mode).unwrap();
        check(&disk);
    }
}

/// As many as a manifest can have; the one with the highest handle is the one that is used.
#[test]
fn sixty_three_devices() {
    let scratch = Scratch::new();
    let names: Vec<String> = (0..62).map(|n| format!("storage{n}")).collect();
    let mut devices: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    devices.push(("storage", 1));
    let mut elf = Elf::read(&unikernel("block"));
    elf.declare(&devices);
    let kernel = scratch.file("many.hvt", &elf.bytes);
    let disks: Vec<_> =
        devices.iter().map(|(name, _)| (*name, scratch.zeroes(name, 16 << 10))).collect();
    let all = |count: usize| {
        let tender = Tender::of(&kernel).args(["write", "32"]);
        disks[..count].iter().fold(tender, |tender, (name, disk)| tender.block(name, disk))
    };
    all(63).run().assert_success();
    for (name, disk) in &disks {
        let untouched = fs::read(disk).unwrap().iter().all(|&byte| byte == 0);
        assert_eq!(untouched, *name != "storage", "{name}");
    }
    all(62).run().assert_ends(1, "All declared devices must be attached");
    devices.push(("one", 1));
    let mut elf = Elf::read(&unikernel("block"));
    elf.declare(&devices);
    let run = Tender::of(&scratch.file("too-many.hvt", &elf.bytes)).run();
    run.assert_ends(1, "note does not fall within valid size");
}
