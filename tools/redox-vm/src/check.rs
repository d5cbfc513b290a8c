//! `redox-vm check`: which mode, why, and what stands in the way.

use crate::description::Description;
use crate::run::type1_backend;
use crate::{files, obstacles, qemu};
use hypervisor::config::Bytes;
use hypervisor::mode::ModeKind;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Says everything about a description, on standard output.
///
/// # Errors
/// If anything stands in its way.
pub fn check(path: &Path) -> Result<(), String> {
    let mut description = Description::read(path)?;
    let vm = &description.vm;
    let mut told = format!("{}: {}\n", vm.name, description.resolved);
    let pinned = if vm.cpus.is_empty() { String::new() } else { format!(" on CPU {:?}", vm.cpus) };
    let tsc = vm.type1().tsc_khz.map(|khz| format!(", a TSC of {khz} kHz")).unwrap_or_default();
    let (memory, vcpus) = (Bytes(vm.memory), vm.vcpus);
    told.push_str(&format!("  {memory} of memory, {vcpus} vCPU(s){pinned}{tsc}\n"));
    let mut found = obstacles::all(&description);
    files::each(&mut description.vm, |_, path| match std::fs::metadata(&*path) {
        Ok(file) if file.is_file() => {
            told.push_str(&format!("  {path}: {} bytes\n", file.len()));
        }
        Ok(file) if !file.is_dir() => told.push_str(&format!("  {path}: a device\n")),
        _ => {}
    });
    match how(description.mode()) {
        Ok(how) => told.push_str(&format!("  {how}\n")),
        Err(why) => found.push(why),
    }
    match std::io::stdout().write_all(told.as_bytes()) {
        // Who reads no further has what was wanted.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            return Err(format!("standard output: {error}"));
        }
        _ => {}
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(found.join("; "))
}

/// What `--backend=auto` would take here.
fn how(mode: ModeKind) -> Result<String, String> {
    Ok(match mode {
        ModeKind::Hvt => match backend_kvm::host_can_virtualize() {
            Ok(()) => "it runs on KVM where that passes a trial, else in the sandbox".to_owned(),
            Err(why) => format!("it runs in the sandbox: {why}"),
        },
        ModeKind::Type1 => match type1_backend() {
            Ok(_) => "it runs on KVM".to_owned(),
            Err(why) => {
                qemu::is_there().map_err(|error| format!("{error}; not on KVM either: {why}"))?;
                format!("it runs on QEMU: {why}")
            }
        },
        // An obstacle, which has its own words.
        ModeKind::VirtIO => "it does not run".to_owned(),
    })
}
