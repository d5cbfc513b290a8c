//! Each step, in a child of its own. Where the machine has not got it, the test says so, past the
//! harness, in the form that `cargo xtask test` counts.

use super::*;
use crate::forked;
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::fcntl_getfd;
use std::io::{self, Write};

const SKIPPED: u8 = 77;

/// The child's word: 0 is good, others name the step.
fn check(what: &str, f: impl FnOnce() -> u8) {
    match forked::run(f).exit_status() {
        Some(0) => {}
        Some(status) if status == i32::from(SKIPPED) => {
            let _ = writeln!(io::stdout(), "skipped: {what}: this machine refuses it");
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn landlock_takes_the_file_system_away_and_leaves_one_directory() {
    check("landlock_takes_the_file_system_away_and_leaves_one_directory", || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = open(c"/dev/shm", flags, Mode::empty()) else { return SKIPPED };
        if landlock(Some(directory.as_fd())) != Outcome::Done {
            return SKIPPED;
        }
        let read = |path| open(path, OFlags::RDONLY, Mode::empty()).map(drop);
        if read(c"/etc/passwd") != Err(Errno::ACCESS) || read(c"/dev/null") != Err(Errno::ACCESS) {
            return 1;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        u8::from(open(c"/dev/shm/redox-hypervisor-test", flags, Mode::RUSR).is_err()) * 2
    });
    let _ = std::fs::remove_file("/dev/shm/redox-hypervisor-test");
}

#[test]
fn capabilities_are_gone() {
    check("capabilities_are_gone", || {
        if no_capabilities() != Outcome::Done {
            return 1;
        }
        let left = rustix::thread::capabilities(None);
        u8::from(!left.is_ok_and(|sets| sets.permitted.is_empty() && sets.effective.is_empty()))
    });
}

#[test]
fn core_dumps_and_tracing_are_off() {
    check("core_dumps_and_tracing_are_off", || {
        if no_core_dumps() != Outcome::Done || not_traceable() != Outcome::Done {
            return 1;
        }
        let limit = rustix::process::getrlimit(Resource::Core);
        let dumpable = rustix::process::dumpable_behavior();
        u8::from(limit.maximum != Some(0) || dumpable != Ok(DumpableBehavior::NotDumpable)) * 2
    });
}

#[test]
fn only_the_kept_descriptors_stay_open() {
    let open = |_| open(c"/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
    let files: [OwnedFd; 4] = core::array::from_fn(open);
    let raw = files.each_ref().map(|fd| fd.as_raw_fd());
    check("only_the_kept_descriptors_stay_open", || {
        let mut keep = [raw[2], raw[0], 1, raw[2]];
        // SAFETY: the child ends without using the others.
        if unsafe { close_all_but(&mut keep) } != Outcome::Done {
            return SKIPPED;
        }
        let is_open = |fd| {
            // SAFETY: only asked whether it is open.
            fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) }).is_ok()
        };
        let state = [raw[0], raw[1], raw[2], raw[3], 0, 1].map(is_open);
        u8::from(state != [true, false, true, false, false, true])
    });
}

#[test]
fn a_process_in_which_all_memory_is_executable_is_refused() {
    assert_eq!(check_personality(), Ok(()));
    check("a_process_in_which_all_memory_is_executable_is_refused", || {
        // SAFETY: changes this child's later mappings only.
        if unsafe { syscall(libc::SYS_personality, [0x40_0000, 0, 0, 0, 0, 0]) }.is_err() {
            return SKIPPED;
        }
        u8::from(check_personality().is_ok())
    });
}
