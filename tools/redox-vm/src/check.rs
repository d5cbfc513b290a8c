//! `redox-vm check`: which mode, why, and what stands in the way.

use crate::description::Description;
use crate::files;
use crate::run::type1_backend;
use hypervisor::mode::ModeKind;
use std::path::Path;

/// Says everything about a description, on standard output.
///
/// # Errors
/// If anything stands in its way.
pub fn check(path: &Path) -> Result<(), String> {
    let mut description = Description::read(path)?;
    let vm = &description.vm;
    println!("{}: {}", vm.name, description.resolved);
    let pinned = if vm.cpus.is_empty() { String::new() } else { format!(" on CPU {:?}", vm.cpus) };
    let tsc = vm.type1().tsc_khz.map(|khz| format!(", a TSC of {khz} kHz")).unwrap_or_default();
    println!("  {} MiB of memory, {} vCPU(s){pinned}{tsc}", vm.memory >> 20, vm.vcpus);
    let mut missing = Vec::new();
    files::each(&mut description.vm, |_, path| {
        let found = std::fs::metadata(&*path);
        match &found {
            Ok(file) if file.is_file() => println!("  {path}: {} bytes", file.len()),
            Ok(_) => println!("  {path}: there"),
            Err(error) => missing.push(format!("{path}: {error}")),
        }
    });
    println!("  {}", how(description.mode()));
    if missing.is_empty() {
        return Ok(());
    }
    Err(missing.join("; "))
}

/// What `--backend=auto` would take here.
fn how(mode: ModeKind) -> String {
    match mode {
        ModeKind::Hvt => match backend_kvm::host_can_virtualize() {
            Ok(()) => "it runs on KVM where that passes a trial, else in the sandbox".to_owned(),
            Err(why) => format!("it runs in the sandbox: {why}"),
        },
        ModeKind::Type1 => match type1_backend() {
            Ok(_) => "it runs on KVM".to_owned(),
            Err(why) => format!("it runs on QEMU: {why}"),
        },
        ModeKind::VirtIO => "mode virtio cannot run yet".to_owned(),
    }
}
