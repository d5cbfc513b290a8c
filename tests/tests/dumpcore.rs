//! `--dumpcore`: an ELF core file of a guest that aborted.

use std::fs;
use std::path::Path;
use system_tests::elf::{Elf, PT_LOAD, PT_NOTE, phdr};
use system_tests::{Outcome, Scratch, Tender};

fn dump(to: &Path, misdeed: &str) -> Outcome {
    let option = format!("--dumpcore={}", to.display());
    Tender::new("hostile").mem(8).option(option).args([misdeed]).run()
}

/// Programs take the file's name from the end of a line of standard error.
#[test]
fn a_guest_that_aborts_leaves_a_core_file() {
    let scratch = Scratch::new();
    let run = dump(scratch.path(), "ud2");
    assert_eq!(run.status, Some(255), "{run:#?}");
    let name = format!("core.solo5-hvt.{}", run.pid);
    assert!(run.stderr.lines().any(|line| line.ends_with(&name)), "{run:#?}");
    let core = Elf::read(&scratch.join(&name));
    assert_eq!((core.half(16), core.half(18)), (4, 62), "ET_CORE, EM_X86_64");
    assert_eq!(core.headers(PT_NOTE).len(), 1);
    let memory = core.headers(PT_LOAD)[0];
    assert_eq!((core.size(memory + phdr::VADDR), core.size(memory + phdr::MEMSZ)), (0, 8 << 20));
    let at = core.size(memory + phdr::OFFSET);
    let content = &core.bytes[at..at + core.size(memory + phdr::FILESZ)];
    assert!(content.windows(4).any(|bytes| bytes == b"ud2\0"), "the command line is in it");
    assert!(content.windows(2).any(|bytes| bytes == [0x0f, 0x0b]), "and the instruction");
}

/// The note's registers are those of the trap, as the guest printed them.
#[test]
fn the_note_has_the_registers_of_the_trap() {
    let scratch = Scratch::new();
    let run = dump(scratch.path(), "ud2");
    let rip = run.stdout.split_once("rip=0x").expect("a trap line").1.split(' ').next().unwrap();
    let rip = usize::from_str_radix(rip, 16).unwrap();
    let core = Elf::read(&scratch.join(&format!("core.solo5-hvt.{}", run.pid)));
    let note = core.size(core.headers(PT_NOTE)[0] + phdr::OFFSET);
    let name = core.word(note) as usize;
    let status = note + 12 + name.next_multiple_of(4);
    assert_eq!(core.word(note + 8), 1, "NT_PRSTATUS");
    assert_eq!(core.size(status + 112 + 16 * 8), rip, "pr_reg's RIP");
}

/// Mostly nothing: the file takes no more space than the guest touched.
#[test]
fn the_file_is_sparse() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    let option = format!("--dumpcore={}", scratch.path().display());
    let run = Tender::new("hostile").mem(512).option(option).args(["ud2"]).run();
    let data = fs::metadata(scratch.join(&format!("core.solo5-hvt.{}", run.pid))).unwrap();
    assert!(data.len() > 512 << 20, "{}", data.len());
    assert!(data.blocks() * 512 < 64 << 20, "{} blocks", data.blocks());
}

#[test]
fn other_ends_leave_none() {
    let scratch = Scratch::new();
    for (misdeed, status) in [("puts-end", 0), ("hlt", 1)] {
        assert_eq!(dump(scratch.path(), misdeed).status, Some(status));
    }
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_cannot_be_is_refused_before_the_guest_runs() {
    let run = dump(Path::new("/nonexistent"), "ud2");
    run.assert_ends(1, "dumpcore: cannot open dir");
    assert_eq!(run.stdout, "");
}
