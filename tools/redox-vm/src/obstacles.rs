//! What stands in a VM's way on this machine, found without making it.
//!
//! [`files()`] and [`networks`] are looked at before QEMU is started, which says less and makes a TAP
//! that is not there; [`all`] is what `redox-vm check` tells.

use crate::description::Description;
use crate::files::{self, Role};
use crate::hvt;
use host_linux::blob::FileBlob;
use host_linux::net::Port;
use hypervisor::config::{HvtResource, ResourceKind, Type1Disk, VmConfig};
use hypervisor::detect::{ImageKind, detect};
use hypervisor::mode::ModeKind;
use hypervisor::modes::hvt::arch::GuestArch;
use hypervisor::modes::hvt::image::Image;
use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;

/// Bytes of a disk's sector.
pub const SECTOR: u64 = 512;
/// Longest name of a network interface (netdevice(7): `IFNAMSIZ` less its end).
const LONGEST_NAME: usize = 15;

/// Everything that is found, each in words for a person.
pub fn all(description: &Description) -> Vec<String> {
    let vm = &description.vm;
    let mut found = files(vm);
    found.extend(networks(vm));
    found.extend(host_linux::pin::check(vm).err().map(|error| error.to_string()));
    // What is not there has been told.
    if found.is_empty() {
        found.extend(image(description).err());
    }
    found
}

/// Files that are not there, or are not what they have to be.
pub fn files(vm: &VmConfig) -> Vec<String> {
    let mut found = Vec::new();
    files::each(&mut vm.clone(), |role, path| found.extend(file(role, path).err()));
    found.extend(vm.hvt().resources.iter().filter_map(|resource| sectors(resource).err()));
    found
}

/// A unikernel's disk is whole sectors, as Solo5 has it.
fn sectors(resource: &HvtResource) -> Result<(), String> {
    let ResourceKind::Block { path, sector_size } = &resource.kind else { return Ok(()) };
    match rest_of(path, u64::from(*sector_size)) {
        Some(rest) => Err(format!(
            "{path}: its size is no multiple of the sector size, {sector_size} bytes; take away \
             {rest} bytes, or add {}",
            u64::from(*sector_size) - rest
        )),
        None => Ok(()),
    }
}

/// The bytes of a file behind its last whole sector, if there are any.
fn rest_of(path: &str, sector_size: u64) -> Option<u64> {
    let of = fs::metadata(path).ok().filter(|of| of.is_file())?;
    Some(of.len() % sector_size.max(1)).filter(|rest| *rest != 0)
}

/// What a person should know of a machine's disks: the end of a file that is no whole sector is not
/// part of the disk, on any backend. Nothing is written there, and the file does not grow.
pub fn cut_disks(vm: &VmConfig) -> Vec<String> {
    let disks = vm.type1().disks;
    let told = |disk: &Type1Disk| {
        let rest = rest_of(&disk.path, SECTOR)?;
        let path = &disk.path;
        Some(format!("{path}: the last {rest} bytes are no whole sector; the guest has no access"))
    };
    disks.iter().filter_map(told).collect()
}

fn file(role: Role, path: &str) -> Result<(), String> {
    let told = |what: &str| Err(format!("{path}: {what}"));
    let of = fs::metadata(path).map_err(|error| format!("{path}: {error}"))?;
    if of.is_dir() != (role == Role::Folder) {
        return told(if of.is_dir() {
            "it is a folder, and not a file"
        } else {
            "it is no folder"
        });
    }
    if role == Role::Folder {
        return Ok(());
    }
    if !of.is_file() && !of.file_type().is_block_device() {
        return told("it is neither a file nor a block device");
    }
    File::open(path).map_err(|error| format!("{path}: {error}"))?;
    match (role, of.is_file(), of.len()) {
        (Role::Image, true, 0) => told("it is empty"),
        (Role::Disk, true, size @ 0..SECTOR) => {
            told(&format!("it has {size} bytes, and a disk at least one sector of {SECTOR}"))
        }
        _ => Ok(()),
    }
}

/// TAP interfaces that are not there.
pub fn networks(vm: &VmConfig) -> Vec<String> {
    let (hvt, type1) = (vm.hvt(), vm.type1());
    let unikernels = hvt.resources.iter().filter_map(|resource| match &resource.kind {
        ResourceKind::Net { interface, .. } => Some(interface),
        ResourceKind::Block { .. } => None,
    });
    let machines = type1.nets.iter().filter_map(|net| net.interface.as_ref());
    unikernels.chain(machines).filter_map(|interface| network(interface).err()).collect()
}

fn network(interface: &str) -> Result<(), String> {
    let is_named = !interface.starts_with('@') && interface.split(',').next() != Some("user");
    if is_named && (interface.len() > LONGEST_NAME || interface.contains('/')) {
        return Err(format!(
            "network {interface}: an interface's name has at most {LONGEST_NAME} bytes and no `/'; \
             or write interface = \"user\""
        ));
    }
    // By the calls that attach it: /sys shows another namespace's interfaces.
    Port::check(interface)
        .map_err(|error| format!("network {interface}: {error}; or write interface = \"user\""))
}

/// Whether what is booted is what this mode boots.
fn image(description: &Description) -> Result<(), String> {
    let vm = &description.vm;
    match description.mode() {
        ModeKind::VirtIO => Err("mode virtio has no backend yet: a VM of mode type1 has virtio \
                                 disks and networks"
            .to_owned()),
        ModeKind::Hvt => {
            let kernel = hvt::unikernel(vm)?;
            let blob = open(kernel)?;
            Image::read(&blob, GuestArch::X86_64).map_err(|e| format!("{kernel}: {e}"))?;
            hvt::check(vm)
        }
        ModeKind::Type1 => {
            let type1 = vm.type1();
            if type1.nested {
                return Err("nested = true: a guest cannot itself be a hypervisor for now".into());
            }
            type1.kernel.as_deref().map_or(Ok(()), kernel)
        }
    }
}

/// A kernel of a Type 1 machine.
fn kernel(path: &str) -> Result<(), String> {
    let kind = detect(&open(path)?).ok();
    match kind {
        Some(ImageKind::BzImage | ImageKind::Pvh | ImageKind::Multiboot) => Ok(()),
        _ => {
            let is = kind.map(|kind| format!("it is {kind}, and ")).unwrap_or_default();
            Err(format!(
                "{path}: {is}no kernel that can be started: give a bzImage, an ELF file with a PVH \
                 note, or a multiboot kernel (docs/boot.md)"
            ))
        }
    }
}

fn open(path: &str) -> Result<FileBlob, String> {
    FileBlob::open(path.as_ref()).map_err(|error| format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, files: &[(&str, &[u8])]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            fs::write(folder.path().join(name), contents).unwrap();
        }
        fs::create_dir(folder.path().join("folder")).unwrap();
        let path = folder.path().join("vm.toml");
        fs::write(&path, format!("[vm]\nname = \"x\"\n{text}")).unwrap();
        all(&Description::read(&path).unwrap()).join("; ")
    }

    #[test]
    fn files_have_to_be_what_they_are_for() {
        let disk = |path: &str| {
            let text = format!("[vm.type1]\nkernel = \"k\"\n[[vm.type1.disks]]\npath = \"{path}\"");
            found(&text, &[("k", b"kernel"), ("short", &[0; 511]), ("good", &[0; 512])])
        };
        assert!(disk("short").contains("short: it has 511 bytes, and a disk at least one sector"));
        assert!(disk("folder").contains("folder: it is a folder, and not a file"));
        assert!(disk("none").contains("none: No such file or directory"));
        assert!(disk("/dev/null").contains("/dev/null: it is neither a file nor a block device"));
        assert!(disk("good").contains("k: no kernel that can be started: give a bzImage"));
        assert!(found("[vm.type1]\nkernel = \"k\"", &[("k", b"")]).contains("k: it is empty"));
    }

    #[test]
    fn the_end_of_a_disk_that_is_no_whole_sector_is_told_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let disks = |bytes: usize, rows: &str| {
            fs::write(&path, vec![0; bytes]).unwrap();
            let file = folder.path().join("vm.toml");
            fs::write(&file, format!("[vm]\nname = \"x\"\n{rows}")).unwrap();
            let vm = Description::read(&file).unwrap().vm;
            (files(&vm).join("; "), cut_disks(&vm).join("; "))
        };
        let type1 = "[vm.type1]\nkernel = \"k\"\n[[vm.type1.disks]]\npath = \"disk\"";
        assert!(
            disks(1300, type1)
                .1
                .ends_with("disk: the last 276 bytes are no whole sector; the guest has no access")
        );
        assert_eq!(disks(1024, type1).1, "");
        let hvt = "[vm.hvt]\nunikernel = \"u\"\n[[vm.hvt.resources]]\ntype = \"block\"\npath = \"disk\"\nsector_size = 1024";
        let refused = disks(1536, hvt).0;
        assert!(refused.contains("1024 bytes; take away 512 bytes, or add 512"), "{refused}");
        assert!(!disks(2048, hvt).0.contains("multiple"));
    }

    #[test]
    fn a_unikernel_is_one_and_is_named() {
        assert!(found("", &[]).contains("it names no unikernel: write unikernel = "));
        let text = found("[vm.hvt]\nunikernel = \"u\"", &[("u", b"no ELF file")]);
        assert!(text.contains("u: invalid or unsupported executable"), "{text}");
    }

    #[test]
    fn networks_have_to_be_there() {
        let net = |interface: &str| {
            let rows = format!("[[vm.type1.nets]]\ninterface = \"{interface}\"");
            let text = format!("[vm.type1]\nfirmware = \"f\"\n{rows}");
            found(&text, &[("f", b"firmware")])
        };
        assert!(
            net("no-such-tap").contains("network no-such-tap: No such interface; make it with")
        );
        assert!(net("a-name-of-16-byt").contains("at most 15 bytes"));
        assert!(net("lo").contains("network lo: this is no TAP interface with one queue"));
        for good in ["@7", "user", "user,tcp=8080:80"] {
            assert_eq!(net(good), "");
        }
    }
}
