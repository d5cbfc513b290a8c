//! Files that are not what they should be: each ends in one line that names the reason.

use system_tests::elf::{Elf, NOTE_ABI, NOTE_MANIFEST, PT_LOAD, phdr};
use system_tests::{Outcome, Scratch, Tender, unikernel};

fn run_bytes(bytes: &[u8]) -> Outcome {
    let scratch = Scratch::new();
    Tender::of(&scratch.file("broken.hvt", bytes)).run()
}

fn refused(bytes: &[u8], text: &str) {
    let run = run_bytes(bytes);
    run.assert_ends(1, text);
    assert!(run.stdout.is_empty() && run.stderr.lines().count() == 1, "{run:#?}");
    assert!(run.stderr.contains("broken.hvt"), "{run:#?}");
}

fn hello() -> Elf {
    Elf::read(&unikernel("hello"))
}

fn segment(elf: &Elf, index: usize) -> usize {
    elf.headers(PT_LOAD)[index]
}

/// A unikernel is no program: executing the file itself must fail, not run it on the host.
#[test]
fn the_host_refuses_to_execute_a_unikernel() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let file = scratch.file("program", &hello().bytes);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(std::process::Command::new(&file).output().is_err());
}

#[test]
fn not_an_executable() {
    refused(b"", "invalid or unsupported executable");
    refused(b"#!/bin/sh\n", "invalid or unsupported executable");
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(run_bytes(&program).status, Some(1));
}

#[test]
fn truncated() {
    let elf = hello();
    for length in [1, 63, 64, 100, 64 + 56] {
        refused(&elf.bytes[..length], "invalid or unsupported executable");
    }
    let text = segment(&elf, 0);
    let end = elf.size(text + phdr::OFFSET) + elf.size(text + phdr::FILESZ);
    refused(&elf.bytes[..end - 1], "beyond the end of the file");
}

#[test]
fn note_sizes() {
    for note in [NOTE_ABI, NOTE_MANIFEST] {
        let mut elf = hello();
        let (header, _) = elf.note(note);
        elf.set(header + phdr::FILESZ, &8u64.to_le_bytes());
        elf.set(header + phdr::MEMSZ, &8u64.to_le_bytes());
        refused(&elf.bytes, "note does not fall within valid size");
    }
}

#[test]
fn abi_of_another_time_or_tender() {
    let mut elf = hello();
    let (_, at) = elf.note(NOTE_ABI);
    elf.set(at + 4, &9u32.to_le_bytes());
    refused(&elf.bytes, "Executable requests unsupported ABI version 9");
    let mut elf = hello();
    elf.set(at, &3u32.to_le_bytes());
    refused(&elf.bytes, "not for the solo5-hvt target");
}

#[test]
fn manifest_that_lies() {
    let mut elf = hello();
    let (_, at) = elf.note(NOTE_MANIFEST);
    assert!((0..8).any(|pad| elf.word(at + pad) == 1), "the manifest's version is near its start");
    let at = (0..8).map(|pad| at + pad).find(|&at| elf.word(at) == 1).unwrap();
    elf.set(at + 4, &1000u32.to_le_bytes());
    refused(&elf.bytes, "Solo5 manifest is invalid: it has 1000 entries");
}

#[test]
fn segments_that_break_the_rules() {
    let elf = hello();
    let text = segment(&elf, 0);
    let damaged = |offset: usize, value: &[u8]| {
        let mut elf = hello();
        elf.set(text + offset, value);
        elf.bytes
    };
    refused(&damaged(phdr::FLAGS, &[7]), "segment requests WRITE and EXEC permissions");
    refused(&damaged(phdr::VADDR, &0x1000u64.to_le_bytes()), "below the lowest address");
    refused(&damaged(phdr::MEMSZ, &(u64::MAX >> 1).to_le_bytes()), "phdr[");
    refused(&damaged(phdr::FILESZ, &(1u64 << 40).to_le_bytes()), "phdr[");
    refused(&damaged(phdr::OFFSET, &u64::MAX.to_le_bytes()), "phdr[");
}

#[test]
fn entry_outside_of_the_code() {
    let mut elf = hello();
    elf.set(24, &0xdead_0000u64.to_le_bytes());
    refused(&elf.bytes, "e_entry 0xdead0000 is not in an executable segment");
}

#[test]
fn too_little_memory_says_how_much() {
    let mut elf = hello();
    let last = *elf.headers(PT_LOAD).last().unwrap();
    elf.set(last + phdr::MEMSZ, &(100u64 << 20).to_le_bytes());
    let scratch = Scratch::new();
    let file = scratch.file("broken.hvt", &elf.bytes);
    let run = Tender::of(&file).run();
    run.assert_ends(1, "the smallest memory that holds it is --mem=");
    let smallest = run.stderr.trim_end().rsplit_once("--mem=").unwrap().1.parse().unwrap();
    Tender::of(&file).mem(smallest).run().assert_success();
}
