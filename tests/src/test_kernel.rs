//! A whole machine under the VM manager with `tests/kernel` as its guest.

use crate::{Scratch, Tender, environment};

/// A command line of the VM manager for a machine of 64 MiB on KVM, whose kernel has this command
/// line. Its description is in `scratch`.
///
/// # Panics
/// If there is no manager: see [`can_run`].
pub fn machine(scratch: &Scratch, vcpus: u32, cmdline: &str) -> Tender {
    described("kvm", scratch, vcpus, ["", ""], cmdline)
}

/// The same on this backend, with a vCPU on each of these CPUs.
///
/// # Panics
/// As [`machine`].
pub fn pinned(backend: &str, scratch: &Scratch, cpus: &[u32], cmdline: &str) -> Tender {
    let (vcpus, line) = (u32::try_from(cpus.len()), format!("cpus = {cpus:?}"));
    described(backend, scratch, vcpus.expect("few CPUs"), [&line, ""], cmdline)
}

/// The same with one vCPU on another backend.
///
/// # Panics
/// If there is no manager.
pub fn machine_on(backend: &str, scratch: &Scratch, cmdline: &str) -> Tender {
    described(backend, scratch, 1, ["", ""], cmdline)
}

/// The same with a line for `[vm.type1]`, such as `tsc_khz = 2000000`.
///
/// # Panics
/// If there is no manager.
pub fn tuned_on(backend: &str, scratch: &Scratch, line: &str, cmdline: &str) -> Tender {
    described(backend, scratch, 1, ["", line], cmdline)
}

/// `lines` are one more for `[vm]` and one more for `[vm.type1]`.
fn described(
    backend: &str,
    scratch: &Scratch,
    vcpus: u32,
    lines: [&str; 2],
    cmdline: &str,
) -> Tender {
    let [line, type1] = lines;
    let kernel = environment::test_kernel();
    let description = format!(
        "[vm]\nname = \"test\"\nmode = \"type1\"\nvcpus = {vcpus}\nmemory = \"64M\"\n\
         {line}\n[vm.type1]\nkernel = {kernel:?}\ncmdline = {cmdline:?}\n{type1}\n"
    );
    let path = scratch.file("vm.toml", description.as_bytes());
    let manager = environment::manager().expect("REDOX_VM names the VM manager");
    let backend = format!("--backend={backend}");
    Tender::bare().program(&manager).options(["run", &backend]).option(path)
}

/// Whether these tests can be run here; if not, says that `test` is skipped.
pub fn can_run(test: &str) -> bool {
    let why = match environment::backend().as_deref() {
        Some("kvm") if environment::manager().is_some() => return true,
        Some("kvm") => "REDOX_VM names no VM manager",
        _ => "whole machines are tested on KVM",
    };
    environment::skip(test, why);
    false
}
