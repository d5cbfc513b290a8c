//! The files that a description names.

use hypervisor::config::{
    ManifestSource, ModeSpecificConfig, ResourceKind, VirtioDevice, VmConfig,
};
use std::path::PathBuf;

/// What a file is to a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Read when the VM is made: a kernel, a unikernel, an initial RAM disk, firmware.
    Image,
    /// Read and written while it runs.
    Disk,
    /// A directory.
    Folder,
}

/// The paths of all of them.
pub fn all(vm: &VmConfig) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    each(&mut vm.clone(), |_, path| paths.push(PathBuf::from(&*path)));
    paths
}

/// Calls `each` with every file that a description names.
pub fn each(vm: &mut VmConfig, mut each: impl FnMut(Role, &mut String)) {
    let image = vm.image.iter_mut().map(|path| (Role::Image, path));
    let own: Vec<(Role, &mut String)> = match &mut vm.mode_config {
        ModeSpecificConfig::None => Vec::new(),
        ModeSpecificConfig::Hvt(hvt) => {
            let unikernel = hvt.unikernel.iter_mut();
            let manifest = match &mut hvt.manifest {
                ManifestSource::Path(path) => Some(path),
                ManifestSource::Embedded => None,
            };
            let images = unikernel.chain(manifest).map(|path| (Role::Image, path));
            let disks = hvt.resources.iter_mut().filter_map(|resource| match &mut resource.kind {
                ResourceKind::Block { path, .. } => Some((Role::Disk, path)),
                ResourceKind::Net { .. } => None,
            });
            images.chain(disks).collect()
        }
        ModeSpecificConfig::Type1(type1) => {
            let images = [&mut type1.kernel, &mut type1.initrd, &mut type1.firmware];
            let images = images.into_iter().flatten().map(|path| (Role::Image, path));
            let modules = type1.modules.iter_mut().map(|module| (Role::Image, &mut module.path));
            let disks = type1.disks.iter_mut().map(|disk| (Role::Disk, &mut disk.path));
            images.chain(modules).chain(disks).collect()
        }
        ModeSpecificConfig::VirtIO(virtio) => virtio
            .devices
            .iter_mut()
            .filter_map(|device| match device {
                VirtioDevice::Blk { path, .. } => Some((Role::Disk, path)),
                VirtioDevice::Fs { path, .. } => Some((Role::Folder, path)),
                _ => None,
            })
            .collect(),
    };
    for (role, path) in image.chain(own) {
        each(role, path);
    }
}
