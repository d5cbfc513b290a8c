//! Firmware for a machine whose description names disks, or an image of one, and nothing that
//! starts them: SeaBIOS, where Debian's packages put it.

use hypervisor::config::{ModeSpecificConfig, VmConfig};
use hypervisor::detect::detect;
use hypervisor::host::Blob;
use hypervisor::mode::ModeKind;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Where SeaBIOS is looked for, besides where the QEMU on `PATH` has it: Debian's `seabios`; QEMU
/// from its own sources.
const PLACES: [&str; 3] = [
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
    "/usr/local/share/qemu/bios-256k.bin",
];
/// The same below the folder in which a QEMU was installed.
const BELOW: [&str; 2] = ["share/seabios/bios-256k.bin", "share/qemu/bios-256k.bin"];
const QEMU: &str = "qemu-system-x86_64";

/// Gives a VM the firmware that it needs and does not name, by the name that `find` finds for it,
/// and names it in the description's text as well. `is_disk` says what [`is_disk`] does of the image of
/// that name.
///
/// # Errors
/// If it needs firmware and `find` finds none: in words for a person.
pub fn fill(
    vm: &mut VmConfig,
    text: &mut String,
    is_disk: impl FnOnce(&str) -> bool,
    find: impl FnOnce() -> Result<String, String>,
) -> Result<(), String> {
    if !is_wanted(vm, is_disk) {
        return Ok(());
    }
    let path = find()?;
    *text = named(text, &path)?;
    if !matches!(vm.mode_config, ModeSpecificConfig::Type1(_)) {
        vm.mode_config = ModeSpecificConfig::Type1(Default::default());
    }
    if let ModeSpecificConfig::Type1(type1) = &mut vm.mode_config {
        type1.firmware = Some(path);
    }
    Ok(())
}

/// Whether there is a disk, and nothing that starts.
fn is_wanted(vm: &VmConfig, is_disk: impl FnOnce(&str) -> bool) -> bool {
    if vm.explicit_mode().is_some_and(|mode| mode != ModeKind::Type1) {
        return false;
    }
    let (named, disks) = match &vm.mode_config {
        ModeSpecificConfig::Type1(type1) => {
            (type1.kernel.is_some() || type1.firmware.is_some(), !type1.disks.is_empty())
        }
        _ => (false, false),
    };
    !named && vm.image.as_deref().map_or(disks, is_disk)
}

/// Whether an image is a disk. One that cannot be read is none: whoever opens it to use it tells.
pub fn is_disk(image: &dyn Blob) -> bool {
    detect(image).is_ok_and(|kind| kind.disk().is_some())
}

/// SeaBIOS, where this machine has it.
///
/// # Errors
/// If it has none: where it was looked for and what to install.
pub fn installed() -> Result<String, String> {
    let mut places = PLACES.map(PathBuf::from).to_vec();
    places.extend(beside_qemu(&std::env::var_os("PATH").unwrap_or_default()));
    find(&places)
}

/// Where the first QEMU of these folders has it, if there is one.
fn beside_qemu(folders: &OsStr) -> Vec<PathBuf> {
    let mut programs = std::env::split_paths(folders).map(|folder| folder.join(QEMU));
    let found = programs.find(|at| at.is_file()).and_then(|at| at.canonicalize().ok());
    let prefix = found.as_deref().and_then(Path::parent).and_then(Path::parent);
    prefix.into_iter().flat_map(|prefix| BELOW.map(|below| prefix.join(below))).collect()
}

/// The first of these files that is there.
fn find(places: &[PathBuf]) -> Result<String, String> {
    let shown = |path: &PathBuf| path.display().to_string();
    let found = places.iter().find(|path| path.is_file());
    found.map(shown).ok_or_else(|| {
        format!(
            "the machine boots a disk, and there is no firmware for that: looked for {}; install \
             SeaBIOS (on Debian the package seabios), or name a file as `firmware` in [vm.type1], \
             such as /usr/share/ovmf/OVMF.fd of Debian's package ovmf",
            places.iter().map(shown).collect::<Vec<_>>().join(", ")
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

    fn parsed(text: &str) -> VmConfig {
        VmConfig::from_toml(text).unwrap()
    }

    /// Whether a VM whose image this is wants firmware.
    fn wanted(image: &[u8], more: &str) -> bool {
        let vm = parsed(&format!("[vm]\nname = \"x\"\nimage = \"i\"\n{more}"));
        is_wanted(&vm, |path| {
            assert_eq!(path, "i");
            is_disk(&image.to_vec())
        })
    }

    #[test]
    fn disks_and_discs_want_firmware_and_kernels_do_not() {
        let mut sector = [0; 512];
        (sector[0], sector[510], sector[511]) = (0xeb, 0x55, 0xaa);
        let mut disc = vec![0; 17 * 2048];
        disc[16 * 2048..][..6].copy_from_slice(b"\x01CD001");
        assert!(wanted(&sector, ""));
        assert!(wanted(&disc, "[vm.type1]\n"));
        assert!(!wanted(&disc, "[vm.type1]\nfirmware = \"f\"\n"));
        assert!(!wanted(&disc, "[vm.type1]\nkernel = \"k\"\n"));
        assert!(!wanted(&disc, "mode = \"virtio\"\n"));
        assert!(!wanted(b"\x7fELF", ""));
        let disks = parsed("[vm]\nname = \"x\"\n[[vm.type1.disks]]\npath = \"d\"\n");
        assert!(is_wanted(&disks, |_| false));
        let missing = parsed("[vm]\nname = \"x\"\nimage = \"i\"\n[vm.type1]\n");
        assert!(!is_wanted(&missing, |_| false));
    }

    #[test]
    fn what_is_missing_is_said_with_package_and_places() {
        let error = find(&["/nowhere/bios.bin".into()]).unwrap_err();
        assert!(
            error.contains("/nowhere/bios.bin") && error.contains("package seabios"),
            "{error}"
        );
        let there = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(find(&["/nowhere/bios.bin".into(), there.into()]).as_deref(), Ok(there));
    }

    #[test]
    fn the_description_and_its_text_name_it() {
        let mut text = "[vm]\nname = \"x\"\n[[vm.type1.disks]]\npath = \"d\"\n".to_owned();
        let mut vm = parsed(&text);
        assert_eq!(fill(&mut vm, &mut text, |_| false, || Err("none".into())), Err("none".into()));
        fill(&mut vm, &mut text, |_| false, || Ok("/f".into())).unwrap();
        assert_eq!(parsed(&text), vm);
        assert_eq!(vm.type1().firmware.as_deref(), Some("/f"));
    }

    #[test]
    fn a_qemu_of_ones_own_has_its_firmware() {
        let prefix = std::env::temp_dir().join(format!("qemu-{}", std::process::id()));
        let (bin, share) = (prefix.join("bin"), prefix.join("share/qemu"));
        for folder in [&bin, &share] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(bin.join(QEMU), "").unwrap();
        std::fs::write(share.join("bios-256k.bin"), "").unwrap();
        let folders = std::env::join_paths(["/nowhere".into(), bin.clone()]).unwrap();
        let found = find(&beside_qemu(&folders));
        std::fs::remove_dir_all(&prefix).unwrap();
        assert!(found.unwrap().ends_with("share/qemu/bios-256k.bin"));
        assert!(beside_qemu(OsStr::new("/nowhere")).is_empty());
    }
}
