//! HVT mode: a description becomes what the tender's command line would have said.

use crate::Backend;
use crate::run::{ConsoleGone, Options};
use host_linux::blob::FileBlob;
use host_linux::pin;
use hypervisor::config::{HvtConfig, HvtResource, ManifestSource, ResourceKind, VmConfig};
use hypervisor::modes::hvt::arch::GuestArch;
use hypervisor::modes::hvt::image::Image;
use hypervisor::modes::hvt::manifest::{DeviceKind, Manifest};
use redox_hvt::args::{self, BackendChoice, DeviceOption};
use redox_hvt::run;
use std::collections::BTreeSet;

/// Runs the unikernel and gives its status.
///
/// # Errors
/// In words for a person.
pub fn run(vm: &VmConfig, options: &Options, start_ns: u64) -> Result<i32, String> {
    pin::check(vm).map_err(|e| format!("{}: {e}", vm.name))?;
    let hvt = vm.hvt();
    let kernel = unikernel(vm)?;
    if let ManifestSource::Path(path) = &hvt.manifest {
        return Err(format!(
            "{path}: a manifest in a file of its own cannot be used on Linux yet: build it into \
             the unikernel and write manifest = \"auto\""
        ));
    }
    let backend = match options.backend {
        Backend::Auto => BackendChoice::Auto,
        Backend::Kvm => BackendChoice::Kvm,
        Backend::Sandbox => BackendChoice::Sandbox,
        Backend::Qemu => return Err("internal: QEMU does not come here".to_owned()),
    };
    check(vm)?;
    let manifest = manifest(kernel)?;
    let tender = args::Options {
        memory: vm.memory,
        devices: devices(&hvt, &manifest)?,
        backend,
        net_ring: (!hvt.net_ring).then_some(false),
        gdb: None,
        console_gone: options.console_gone.map(|gone| match gone {
            ConsoleGone::End => args::ConsoleGone::End,
            ConsoleGone::Continue => args::ConsoleGone::Continue,
        }),
        dumpcore: None,
        stats: options.stats.clone(),
        read: vec![options.config.clone().into()],
        verbose: options.verbose,
        kernel: kernel.into(),
        arguments: Some(hvt.cmdline.into_bytes())
            .filter(|line| !line.is_empty())
            .into_iter()
            .collect(),
    };
    if let Some(cpu) = vm.cpu_of(0) {
        // All that serves the guest goes with it: the tender takes this for a machine of one CPU.
        pin::pin(cpu).map_err(|e| format!("cannot run on CPU {cpu} only: {e}"))?;
    }
    run::run(&tender, start_ns)
}

/// The unikernel's file.
///
/// # Errors
/// If none is named.
pub fn unikernel(vm: &VmConfig) -> Result<&str, String> {
    vm.boot_image().ok_or_else(|| {
        "it names no unikernel: write unikernel = \"FILE.hvt\" under [vm.hvt], or image under [vm]"
            .to_owned()
    })
}

/// Checks that the manifest's devices and the description's resources are the same.
///
/// # Errors
/// In words for a person.
pub fn check(vm: &VmConfig) -> Result<(), String> {
    let manifest = manifest(unikernel(vm)?)?;
    let given: BTreeSet<String> = devices(&vm.hvt(), &manifest)?
        .into_iter()
        .map(|option| match option {
            DeviceOption::Net(name, _) | DeviceOption::Block(name, _) => name,
            DeviceOption::NetMac(name, _) | DeviceOption::BlockSectorSize(name, _) => name,
        })
        .collect();
    let declared = |name: &String| manifest.devices().any(|(_, device)| *device.name == **name);
    if let Some(name) = given.iter().find(|name| !declared(name)) {
        return Err(format!("the unikernel declares no device `{name}'"));
    }
    match manifest.unattached().find(|device| !given.contains(&*device.0.name)) {
        Some(device) => Err(format!("{device} Write a [[vm.hvt.resources]] for it")),
        None => Ok(()),
    }
}

fn manifest(kernel: &str) -> Result<Manifest, String> {
    let blob = FileBlob::open(kernel.as_ref()).map_err(|e| format!("{kernel}: {e}"))?;
    let image = Image::read(&blob, GuestArch::X86_64).map_err(|e| format!("{kernel}: {e}"))?;
    Ok(image.manifest)
}

/// Resources with names as they are, and those without for the first device of their type that
/// no other has.
fn devices(hvt: &HvtConfig, manifest: &Manifest) -> Result<Vec<DeviceOption>, String> {
    let mut taken: BTreeSet<&str> =
        hvt.resources.iter().filter_map(|resource| resource.name.as_deref()).collect();
    let mut options = Vec::new();
    for resource in &hvt.resources {
        let name = match &resource.name {
            Some(name) => name.as_str(),
            None => free(resource, manifest, &taken).ok_or_else(|| {
                let kind = resource.kind.name();
                format!(
                    "a resource of type \"{kind}\" is left over: the unikernel has no device for it"
                )
            })?,
        };
        taken.insert(name);
        given(name, &resource.kind, &mut options)?;
    }
    Ok(options)
}

fn free<'a>(
    resource: &HvtResource,
    manifest: &'a Manifest,
    taken: &BTreeSet<&str>,
) -> Option<&'a str> {
    let kind = match resource.kind {
        ResourceKind::Block { .. } => DeviceKind::Block,
        ResourceKind::Net { .. } => DeviceKind::Net,
    };
    let mut devices = manifest.devices().map(|(_, device)| device);
    devices.find(|d| d.kind == kind && !taken.contains(&*d.name)).map(|device| &*device.name)
}

fn given(name: &str, kind: &ResourceKind, to: &mut Vec<DeviceOption>) -> Result<(), String> {
    let own = || name.to_owned();
    match kind {
        ResourceKind::Block { path, sector_size } => {
            let size = u16::try_from(*sector_size)
                .map_err(|_| format!("{name}: a sector of {sector_size} bytes is too large"))?;
            to.push(DeviceOption::Block(own(), path.into()));
            to.push(DeviceOption::BlockSectorSize(own(), size));
        }
        ResourceKind::Net { interface, mac } => {
            to.push(DeviceOption::Net(own(), interface.clone()));
            to.extend(mac.map(|mac| DeviceOption::NetMac(own(), mac)));
        }
    }
    Ok(())
}
