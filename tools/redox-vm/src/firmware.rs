//! Firmware for a machine whose description names disks, or an image of one, and nothing that
//! starts them: SeaBIOS, where Debian's packages put it.

use hypervisor::config::{ModeSpecificConfig, VmConfig};
use hypervisor::detect::{ImageKind, detect};
use hypervisor::host::Blob;
use hypervisor::mode::ModeKind;
use std::path::Path;
use toml::{Table, Value};

/// Where SeaBIOS is looked for: Debian's `seabios`; QEMU from its own sources.
const PLACES: [&str; 3] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
    "/usr/local/share/qemu/bios-256k.bin",
];

/// Gives a VM of this mode the firmware that it needs and does not name, and names it in the
/// description's text as well.
///
/// # Errors
/// If it needs firmware and there is none: in words for a person.
pub fn fill(vm: &mut VmConfig, text: &mut String, mode: ModeKind) -> Result<(), String> {
    if mode != ModeKind::Type1 || !is_wanted(vm) {
        return Ok(());
    }
    let path = find(&PLACES)?;
    *text = named(text, path)?;
    if !matches!(vm.mode_config, ModeSpecificConfig::Type1(_)) {
        vm.mode_config = ModeSpecificConfig::Type1(Default::default());
    }
    if let ModeSpecificConfig::Type1(type1) = &mut vm.mode_config {
        type1.firmware = Some(path.to_owned());
    }
    Ok(())
}

/// Whether there is a disk, and nothing that starts.
fn is_wanted(vm: &VmConfig) -> bool {
    let (named, disks) = match &vm.mode_config {
        ModeSpecificConfig::Type1(type1) => {
            (type1.kernel.is_some() || type1.firmware.is_some(), !type1.disks.is_empty())
        }
        _ => (false, false),
    };
    // An image that cannot be read is told of by whoever opens it to use it.
    let image = vm.image.as_deref().map(|path| {
        let blob = host_linux::blob::FileBlob::open(path.as_ref());
        blob.is_ok_and(|blob| is_disk(&blob))
    });
    !named && image.unwrap_or(disks)
}

fn is_disk(image: &dyn Blob) -> bool {
    let kind = detect(image);
    matches!(kind, Ok(ImageKind::Iso9660 { .. } | ImageKind::Gpt | ImageKind::BootSector))
}

/// The first of these files that is there.
fn find<'a>(places: &[&'a str]) -> Result<&'a str, String> {
    places.iter().copied().find(|path| Path::new(path).is_file()).ok_or_else(|| {
        format!(
            "the machine boots a disk, and there is no firmware for that: looked for {}; install \
             SeaBIOS (on Debian the package seabios), or name a file as `firmware` in [vm.type1], \
             such as /usr/share/ovmf/OVMF.fd of Debian's package ovmf",
            places.join(", ")
        )
    })
}

/// The description with the firmware named in it.
fn named(text: &str, path: &str) -> Result<String, String> {
    let mut root: Table = text.parse().map_err(|e| format!("{e}"))?;
    let vm = root.get_mut("vm").and_then(Value::as_table_mut).ok_or("there is no [vm]")?;
    let type1 = vm.entry("type1").or_insert_with(|| Value::Table(Table::new()));
    let type1 = type1.as_table_mut().ok_or("[vm.type1] is no table")?;
    type1.insert("firmware".to_owned(), path.into());
    Ok(root.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of this kind, and the description of a VM whose image it is.
    fn vm(folder: &Path, bytes: &[u8], more: &str) -> VmConfig {
        let image = folder.join("image");
        std::fs::write(&image, bytes).unwrap();
        let text =
            format!("[vm]\nname = \"x\"\nimage = \"{}\"\n[vm.type1]\n{more}", image.display());
        VmConfig::from_toml(&text).unwrap()
    }

    #[test]
    fn disks_and_discs_want_firmware_and_kernels_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut sector = [0; 512];
        (sector[0], sector[510], sector[511]) = (0xeb, 0x55, 0xaa);
        let mut disc = vec![0; 17 * 2048];
        disc[16 * 2048..][..6].copy_from_slice(b"\x01CD001");
        assert!(is_wanted(&vm(folder.path(), &sector, "")));
        assert!(is_wanted(&vm(folder.path(), &disc, "")));
        assert!(!is_wanted(&vm(folder.path(), &disc, "firmware = \"f\"\n")));
        assert!(!is_wanted(&vm(folder.path(), &disc, "kernel = \"k\"\n")));
        assert!(!is_wanted(&vm(folder.path(), b"\x7fELF", "")));
        let disks = "[vm]\nname = \"x\"\n[[vm.type1.disks]]\npath = \"d\"\n";
        assert!(is_wanted(&VmConfig::from_toml(disks).unwrap()));
    }

    #[test]
    fn what_is_missing_is_said_with_package_and_places() {
        let error = find(&["/nowhere/bios.bin"]).unwrap_err();
        assert!(
            error.contains("/nowhere/bios.bin") && error.contains("package seabios"),
            "{error}"
        );
        let there = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(find(&["/nowhere/bios.bin", there]), Ok(there));
    }

    #[test]
    fn the_text_names_it_too() {
        let text = named("[vm]\nname = \"x\"\nimage = \"y.iso\"\n", "/f").unwrap();
        let ModeSpecificConfig::Type1(type1) = VmConfig::from_toml(&text).unwrap().mode_config
        else {
            panic!("no [vm.type1] in {text}")
        };
        assert_eq!(type1.firmware.as_deref(), Some("/f"));
    }
}
