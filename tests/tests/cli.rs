//! The command line: options, messages and exit statuses that people and programs rely on.

use std::os::unix::fs::symlink;
use system_tests::{Scratch, Tender, tender_path, unikernel};

#[test]
fn help_is_a_success_on_standard_output() {
    let run = Tender::bare().option("--help").run();
    assert_eq!(run.status, Some(0), "{run:#?}");
    assert!(run.stdout.starts_with("usage: redox-hvt ") && run.stderr.is_empty(), "{run:#?}");
    for option in ["--mem=", "--net:NAME=", "--block:NAME=", "--gdb", "--dumpcore=", "--stats="] {
        assert!(run.stdout.contains(option), "{option}: {run:#?}");
    }
}

/// Orchestrators look for this very line of standard error.
#[test]
fn version_has_the_abi_on_a_line_of_its_own() {
    let run = Tender::bare().option("--version").run();
    assert_eq!(run.status, Some(0), "{run:#?}");
    assert!(run.stderr.lines().any(|line| line == "ABI version 2"), "{run:#?}");
    assert_eq!(run.stdout, "");
}

#[test]
fn called_as_solo5_hvt_it_behaves_as_one() {
    let scratch = Scratch::new();
    let path = scratch.join("solo5-hvt");
    symlink(tender_path(), &path).unwrap();
    let help = Tender::bare().program(&path).option("--help").run();
    help.assert_ends(1, "usage: solo5-hvt ");
    assert_eq!(help.stdout, "", "upstream's goes to standard error");
    let version = Tender::bare().program(&path).option("--version").run();
    version.assert_ends(0, "\nABI version 2\nABI version 1\n");
    let missing = Tender::bare().program(&path).run();
    missing.assert_ends(1, "solo5-hvt: Missing KERNEL operand\nusage: solo5-hvt ");
    Tender::new("hello").program(&path).run().assert_success();
}

#[test]
fn misuse_is_told_where_help_is() {
    for (options, text) in [
        (&[][..], "redox-hvt: Missing KERNEL operand\n"),
        (&["--"], "redox-hvt: Missing KERNEL operand\n"),
        (&["--what", "k"], "redox-hvt: Invalid option: `--what'\n"),
        (&["--what=1", "k"], "redox-hvt: Invalid option: `--what=1'\n"),
        (&["--net:n=", "k"], "redox-hvt: Invalid option: `--net:n='\n"),
        (&["--net-mac:n=1:2", "k"], "redox-hvt: Invalid option: `--net-mac:n=1:2'\n"),
        (&["--block-sector-size:s=521", "k"], "Block size must be a multiple of 2 "),
        (&["--block-sector-size:s=256", "k"], "greater than or equal 512 (not 256)"),
        (&["--memm=1", "k"], "redox-hvt: Invalid option: `--memm=1': did you mean --mem?\n"),
    ] {
        let run = Tender::bare().options(options).run();
        run.assert_ends(1, text);
        assert!(run.stderr.ends_with("redox-hvt: `redox-hvt --help' lists the options\n"));
        assert_eq!(run.stderr.lines().count(), 2, "{run:#?}");
    }
}

#[test]
fn bad_values_are_one_line() {
    for (option, text) in [
        ("--mem=", "Malformed argument to --mem"),
        ("--mem=0", "Malformed argument to --mem"),
        ("--mem=-1", "Malformed argument to --mem"),
        ("--mem=64X", "Malformed argument to --mem"),
        ("--gdb-port=65536", "Malformed argument to --gdb-port"),
        ("--backend=xen", "Unknown backend `xen': use auto, kvm, sandbox or qemu"),
    ] {
        let run = Tender::bare().options([option, "k"]).run();
        run.assert_ends(1, text);
        assert!(run.stderr.starts_with(&format!("redox-hvt: {text}")), "{run:#?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
    }
}

#[test]
fn options_end_at_two_dashes_or_at_the_kernel() {
    let hello = unikernel("hello");
    let run = Tender::new("hello").args(["--mem=x", "--help", "--"]).run();
    run.assert_success();
    assert!(run.stdout.contains("--help"), "{run:#?}");
    Tender::bare().option("--mem=64").option(&hello).option("--mem=x").run().assert_success();
}

#[test]
fn memory_is_adjusted_and_limited() {
    let small = Tender::new("hello").option("--mem=2").run();
    small.assert_ends(1, "the smallest memory that holds it is --mem=4");
    Tender::new("hello").option("--mem=4").run().assert_success();
    let odd = Tender::new("hello").option("--mem=5").run();
    odd.assert_success();
    assert!(odd.stderr.contains("adjusting memory to 4194304 bytes"), "{odd:#?}");
    Tender::new("hello").option("--mem=4096K").run().assert_success();
    Tender::new("hello").option("--mem=4096").run().assert_success();
    Tender::new("hello").option("--mem=4G").run().assert_success();
    let large = Tender::new("hello").option("--mem=4098").run();
    large.assert_ends(1, "exceeds the max size 4294967296 bytes");
    assert_eq!(large.stderr.lines().count(), 1, "{large:#?}");
}

/// One byte of the 8,192 is the terminator.
#[test]
fn the_command_line_has_a_limit() {
    let most = "x".repeat(8191);
    let run = Tender::new("hello").args([&most]).run();
    run.assert_success();
    assert!(run.stdout.contains(&most), "the argument arrives whole");
    let two = [&most[..4000], &most[..4190]];
    Tender::new("hello").args(two).run().assert_success();
    for words in [vec!["x".repeat(8192)], vec![most, String::new()]] {
        let run = Tender::new("hello").args(&words).run();
        run.assert_ends(1, "command line too long (max=8191 characters)");
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn a_kernel_that_cannot_be_opened_is_named() {
    let scratch = Scratch::new();
    let missing = Tender::of(&scratch.join("nothing.hvt")).run();
    missing.assert_ends(1, "nothing.hvt: Could not open");
    assert!(missing.stderr.ends_with(": No such file or directory\n"), "{missing:#?}");
    assert_eq!(missing.stderr.lines().count(), 1, "{missing:#?}");
    let folder = Tender::of(scratch.path()).run();
    assert_eq!(folder.status, Some(1), "{folder:#?}");
}

#[test]
fn every_declared_device_must_be_attached() {
    let run = Tender::new("block").run();
    run.assert_ends(1, "All declared devices must be attached. See --help for syntax.\n");
    let named =
        "Device 'storage' of type BLOCK_BASIC declared but not attached. Give --block:storage=";
    assert!(run.stderr.contains(named), "{run:#?}");
}

#[test]
fn a_device_that_is_not_declared_is_refused() {
    let scratch = Scratch::new();
    let disk = scratch.zeroes("disk", 1 << 20);
    let run = Tender::new("block").block("storage", &disk).block("other", &disk).run();
    run.assert_ends(1, "Resource not declared in manifest: 'other'");
    let kind = Tender::new("block").block("storage", &disk).net("storage", "@0").run();
    kind.assert_ends(1, "Resource not declared in manifest: 'storage'");
}

#[test]
fn a_disk_that_cannot_be_opened_is_named() {
    let scratch = Scratch::new();
    let run = Tender::new("block").block("storage", &scratch.join("absent")).run();
    run.assert_ends(1, "Could not open block device: ");
    assert!(run.stderr.contains("absent"), "{run:#?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
}

#[test]
fn verbose_says_which_backend_and_why() {
    let run = Tender::new("hello").option("-v").run();
    run.assert_success();
    let line = run.stderr.lines().find(|line| line.contains("backend: ")).expect("a line");
    assert!(line.contains("kvm (") || line.contains("sandbox ("), "{line}");
    if let Some(backend) = system_tests::backend() {
        assert!(line.contains(&format!("backend: {backend} ")), "{line}");
    }
    assert!(!Tender::new("hello").run().stderr.contains("backend"), "silent without -v");
}
