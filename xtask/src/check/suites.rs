//! The suites that run on this machine: cargo's tests, and the system tests on the sandbox
//! backend.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::tally::Tally;
use crate::setup::programs;
use crate::tender::HOST_TARGET;
use crate::{fuzz, image, linux, paths, process, test_kernel};

/// The package of whole-system tests.
pub const SYSTEM: &str = "system-tests";

/// The tests beside the code.
pub fn unit(filter: Option<&str>) -> Result<Tally> {
    let mut command = process::cargo();
    command.args(["test", "--workspace", "--exclude", SYSTEM, "--no-fail-fast"]);
    command.env("PATH", path_with_programs()?);
    tally(&mut command, filter)
}

/// The tests of what unikernels are made of; the unikernels themselves are freestanding and are
/// tested by running them.
pub fn unikernel(filter: Option<&str>) -> Result<Tally> {
    let mut command = process::cargo();
    command.current_dir(paths::root().join("unikernel"));
    command.env("CARGO_TARGET_DIR", paths::target().join("unikernel-build"));
    command.args(["test", "--package", "unikernel", "--package", "unikernel-build"]);
    command.args(["--lib", "--no-fail-fast"]);
    tally(&mut command, filter)
}

/// The system tests with the sandbox backend.
pub fn system(filter: Option<&str>) -> Result<Tally> {
    let mut command = process::cargo();
    command.args(["test", "--package", SYSTEM, "--no-fail-fast"]);
    command.env("PATH", path_with_programs()?);
    command.env("REDOX_HVT", paths::tender()).env("UNIKERNELS", paths::unikernels());
    command.env("BACKEND", "sandbox");
    if paths::manager().exists() {
        command.env("REDOX_VM", paths::manager());
    }
    tally(&mut command, filter)
}

/// The tests of `--backend=qemu`: our image, in QEMU on this machine.
pub fn on_image(filter: Option<&str>) -> Result<Tally> {
    let mut command = process::cargo();
    command.args(["test", "--package", SYSTEM, "--features", "image", "--test", "on_image"]);
    // Each is a machine that takes all it can get.
    command.env("RUST_TEST_THREADS", "1");
    command.env("PATH", linux::path_with_qemu()?);
    command.env("REDOX_HVT", paths::tender()).env("UNIKERNELS", paths::unikernels());
    command.env("REDOX_VM", paths::manager()).env("LINUX", linux::folder());
    command.env("TEST_KERNEL", test_kernel::build()?);
    command.env("REDOX_HYPERVISOR_IMAGE", image::build()?);
    tally(&mut command, filter)
}

/// The core's tests under Miri, where this toolchain has it.
pub fn miri() -> Result<Tally> {
    let mut probe = process::cargo();
    probe.args(["miri", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        return Ok(Tally::skip("this toolchain has no Miri (with rustup: a nightly's component)"));
    }
    let mut command = process::cargo();
    command.args(["miri", "test", "--package", "hypervisor", "--no-fail-fast"]);
    tally(&mut command, None)
}

/// The core's unit tests under AddressSanitizer, where the compiler brings its library: guest
/// memory is raw pointers. Leaks are not looked for: the tests drop whole machines with cycles.
pub fn address_sanitizer() -> Result<Tally> {
    if let Err(why) = fuzz::sanitizer_library() {
        return Ok(Tally::skip(&why.to_string()));
    }
    let mut command = process::cargo();
    command.args(["test", "--package", "hypervisor", "--lib", "--target", HOST_TARGET]);
    command.env("CARGO_TARGET_DIR", paths::target().join("address-sanitizer"));
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    tally(&mut command, None)
}

/// Each fuzz target for a fixed number of runs, where there is the C++ compiler that they take.
pub fn fuzz() -> Result<Tally> {
    if let Err(why) = fuzz::cxx() {
        return Ok(Tally::skip(&why.to_string()));
    }
    let fuzzers = fuzz::Fuzzers::build(false)?;
    let mut tally = Tally::default();
    for target in fuzz::targets()? {
        if fuzzers.smoke(&target)? {
            tally.add(Tally::success());
        } else {
            tally.add(Tally::failure());
            tally.names.push(format!("fuzz target {target}"));
        }
    }
    Ok(tally)
}

/// Runs `cargo test`, shows what it prints and counts.
fn tally(command: &mut Command, filter: Option<&str>) -> Result<Tally> {
    command.args(filter);
    let mut tally = Tally::default();
    let succeeded = process::stream(command, |line| {
        println!("{line}");
        tally.read(line);
    })?;
    Ok(tally.of_run(succeeded))
}

/// `PATH` with the programs that tests start by name.
///
/// # Errors
/// If one of them cannot be had.
pub fn path_with_programs() -> Result<std::ffi::OsString> {
    let mut folders: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let mut programs = vec![programs::gdb().context("the tests need gdb")?];
    for program in [programs::PASST, programs::IP, programs::PING] {
        programs.push(program.get().with_context(|| format!("the tests need {}", program.name))?);
    }
    for at in programs {
        let folder = at.parent().context("a program outside any folder")?.to_path_buf();
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    env::join_paths(folders).context("PATH cannot hold the package cache's folder")
}
