//! `redox-vm` and its child, whatever its parent hands down. QEMU is a script here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Says that it is new enough, and ends as QEMU does after a guest that ended well.
const QEMU: &str = "#!/bin/sh\n\
    [ \"$1\" = --version ] && echo 'QEMU emulator version 10.0.2' && exit 0\nexit 33\n";

#[test]
fn qemus_end_is_seen_although_sigchld_was_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let qemu = at("qemu-system-x86_64");
    fs::write(&qemu, QEMU).unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(at("kernel"), "kernel").unwrap();
    let vm = "[vm]\nname = \"vm\"\nmemory = \"64M\"\n[vm.type1]\nkernel = \"kernel\"\n";
    fs::write(at("vm.toml"), vm).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_redox-vm"));
    command.args(["run", "--backend=qemu"]).arg(at("vm.toml"));
    command.env("PATH", folder.path()).env("REDOX_HYPERVISOR_IMAGE", at("kernel"));
    // SAFETY: one system call, which touches no memory.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    let run = command.output().unwrap();
    assert_eq!((run.status.code(), run.stderr.as_slice()), (Some(0), &b""[..]), "{run:?}");
}
