//! Where the tender and the unikernels are, and what the machine can do.

use crate::processes;
use std::env;
use std::io::{self, Write};
use std::path::PathBuf;

/// The tender.
///
/// # Panics
/// If `REDOX_HVT` does not name a file: a test that has nothing to test must not pass.
pub fn tender_path() -> PathBuf {
    let path = variable("REDOX_HVT");
    assert!(path.is_file(), "REDOX_HVT={}: no such file; run `cargo xtask test`", path.display());
    path
}

/// The unikernel called `name`.
///
/// # Panics
/// If `UNIKERNELS` has no such file.
pub fn unikernel(name: &str) -> PathBuf {
    let path = variable("UNIKERNELS").join(format!("{name}.hvt"));
    assert!(path.is_file(), "{}: no such file; run `cargo xtask test`", path.display());
    path
}

/// The VM manager; `None` where the tests were not given one.
pub fn manager() -> Option<PathBuf> {
    env::var_os("REDOX_VM").map(PathBuf::from).filter(|path| path.is_file())
}

/// A file of the Linux guest: `vmlinuz` or `initramfs.cpio`.
pub fn linux(name: &str) -> PathBuf {
    variable("LINUX").join(name)
}

/// The guest operating system of the Type 1 tests.
///
/// # Panics
/// If `TEST_KERNEL` does not name a file.
pub fn test_kernel() -> PathBuf {
    let path = variable("TEST_KERNEL");
    assert!(path.is_file(), "TEST_KERNEL={}: no such file; run `cargo xtask test`", path.display());
    path
}

/// The backend that is under test; `None` leaves the choice to the tender.
pub fn backend() -> Option<String> {
    env::var("BACKEND").ok().filter(|backend| !backend.is_empty() && backend != "auto")
}

/// Says why a test does not test anything on this machine, past the harness, which keeps what a
/// test prints to itself if it passes. `cargo xtask test` reads the line and counts the test as
/// skipped.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(io::stdout(), "skipped: {test}: {why}");
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    processes::effective_user() == 0
}

/// The file called `name` in the first folder of `PATH` that has one.
pub fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|at| at.is_file())
}

fn variable(name: &str) -> PathBuf {
    match env::var_os(name) {
        Some(value) => PathBuf::from(value),
        None => panic!("{name} is not set: run these tests with `cargo xtask test`"),
    }
}
