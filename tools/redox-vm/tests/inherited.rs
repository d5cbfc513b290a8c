//! `redox-vm` and its child, whatever its parent hands down. QEMU is a script here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Says that it is new enough, and ends as QEMU does after a guest that ended well.
const QEMU: &str = "#!/bin/sh\n\
    [ \"$1\" = --version ] && echo 'QEMU emulator version 10.0.2' && exit 0\nexit 33\n";

/// A command line, and what is called in its process before it begins.
fn redox_vm(arguments: &[&str], before: impl Fn() + Send + Sync + 'static) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redox-vm"));
    command.args(arguments);
    // SAFETY: what is called touches no memory of this process.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            before();
            Ok(())
        });
    }
    command
}

fn machine(folder: &Path, kernel: &[u8]) {
    fs::write(folder.join("kernel"), kernel).unwrap();
    let vm = "[vm]\nname = \"vm\"\nmemory = \"64M\"\n[vm.type1]\nkernel = \"kernel\"\n";
    fs::write(folder.join("vm.toml"), vm).unwrap();
}

/// SIGXFSZ ends a process by default, with half a file behind it.
#[test]
fn a_bundle_beyond_the_limit_of_file_sizes_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    machine(folder.path(), &[0; 300 << 10]);
    let mut command = redox_vm(&["bundle", "vm.toml", "-o", "out.cpio"], || {
        let limit = libc::rlimit { rlim_cur: 100 << 10, rlim_max: 100 << 10 };
        // SAFETY: the limit lives during the call.
        #[allow(unsafe_code)]
        unsafe {
            libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
        }
    });
    let run = command.current_dir(folder.path()).output().unwrap();
    let told = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.starts_with("redox-vm: out.cpio: File too large"), "{told}");
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["kernel", "vm.toml"]);
}

#[test]
fn qemus_end_is_seen_although_sigchld_was_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let qemu = at("qemu-system-x86_64");
    fs::write(&qemu, QEMU).unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    machine(folder.path(), b"kernel");
    let mut command = redox_vm(&["run", "--backend=qemu", "vm.toml"], || {
        // SAFETY: no memory is touched.
        #[allow(unsafe_code)]
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        }
    });
    command.current_dir(folder.path());
    command.env("PATH", folder.path()).env("REDOX_HYPERVISOR_IMAGE", at("kernel"));
    let run = command.output().unwrap();
    assert_eq!((run.status.code(), run.stderr.as_slice()), (Some(0), &b""[..]), "{run:?}");
}
