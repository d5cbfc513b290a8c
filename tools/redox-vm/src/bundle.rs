//! `redox-vm bundle`: descriptions and what they name in one archive, cpio's "newc" (cpio(5);
//! Linux, "initramfs buffer format"): the boot module of our bare-metal image.

use crate::description::{Description, beside};
use crate::files;
use cpio::newc::{Builder, ModeFileType, trailer};
use host_program::output;
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use toml::{Table, Value};
use vm_bundle::Room;

/// Folder of images in an archive.
const IMAGES: &str = "images";
/// Keys of `[vm]` and of its modes' tables whose values are paths of images.
const IMAGE_KEYS: [(&str, &[&str]); 3] = [
    ("", &["image"]),
    ("hvt", &["unikernel", "manifest"]),
    ("type1", &["kernel", "initrd", "firmware"]),
];
/// Keys of lists of tables whose `path` is that of an image.
const LISTS_OF_IMAGES: [&str; 1] = ["modules"];
/// `manifest` may be this, which is no path.
const NO_PATH: &str = "auto";

/// Writes the archive, beside `output` and then in its place, never over anything that a
/// description names.
///
/// # Errors
/// In words for a person.
pub fn write(configs: &[PathBuf], output: &Path) -> Result<(), String> {
    let mut archive = Archive::default();
    let mut inputs = configs.to_vec();
    for config in configs {
        // Also what is not taken along, such as a disk.
        inputs.append(&mut files::all(&archive.add(config)?.vm));
    }
    let bytes = archive.bytes().map_err(|e| format!("cannot make the archive: {e}"))?;
    output::write(output, inputs, &bytes).map_err(|e| e.to_string())
}

/// An archive being made.
#[derive(Default)]
pub struct Archive {
    /// By name.
    descriptions: BTreeMap<String, String>,
    /// By name: where the file is now.
    images: BTreeMap<String, PathBuf>,
    room: Room,
}

impl Archive {
    /// Adds the description in a file and everything that it names.
    ///
    /// # Errors
    /// In words for a person.
    pub fn add(&mut self, config: &Path) -> Result<Description, String> {
        let description = Description::read(config)?;
        let folder = config.parent().unwrap_or(Path::new(""));
        self.add_text(&description.vm.name, &description.text, folder)
            .map_err(|e| format!("{}: {e}", config.display()))?;
        Ok(description)
    }

    /// Adds a description, by its name, whose paths are relative to `folder`.
    ///
    /// # Errors
    /// In words for a person.
    pub fn add_text(&mut self, name: &str, text: &str, folder: &Path) -> Result<(), String> {
        let mut root: Table = text.parse().map_err(|e| format!("{e}"))?;
        let vm = root.get_mut("vm").and_then(Value::as_table_mut).ok_or("there is no [vm]")?;
        for (table, keys) in IMAGE_KEYS {
            let table = match table {
                "" => Some(&mut *vm),
                name => vm.get_mut(name).and_then(Value::as_table_mut),
            };
            let Some(table) = table else { continue };
            for key in keys {
                if let Some(Value::String(path)) = table.get_mut(*key).filter(is_path) {
                    *path = self.image(&beside(folder, path))?;
                }
            }
            for key in LISTS_OF_IMAGES {
                let list = table.get_mut(key).and_then(Value::as_array_mut);
                for entry in list.into_iter().flatten() {
                    if let Some(Value::String(path)) = entry.get_mut("path") {
                        *path = self.image(&beside(folder, path))?;
                    }
                }
            }
        }
        // The image knows a description by its name without what it ends in.
        let file = format!("{}.toml", name.replace('/', "_").replace(".toml", "_toml"));
        match self.descriptions.insert(file, root.to_string()) {
            None => Ok(()),
            Some(_) => Err(format!("there are two VMs of the name {name}: rename one")),
        }
    }

    /// The name in the archive of a file, which is there once however often it is named.
    fn image(&mut self, path: &str) -> Result<String, String> {
        let real = std::fs::canonicalize(path).map_err(|e| format!("{path}: {e}"))?;
        if let Some((name, _)) = self.images.iter().find(|(_, file)| **file == real) {
            return Ok(name.clone());
        }
        let size = std::fs::metadata(&real).map_err(|e| format!("{path}: {e}"))?.len();
        self.room.take(path, size)?;
        let base = real.file_name().unwrap_or_default().to_string_lossy();
        let plain = format!("{IMAGES}/{base}");
        let more = (2..).map(|number| format!("{IMAGES}/{number}-{base}"));
        let free = std::iter::once(plain).chain(more).find(|name| !self.images.contains_key(name));
        let name = free.unwrap_or_default();
        self.images.insert(name.clone(), real);
        Ok(name)
    }

    /// The archive, descriptions first.
    ///
    /// # Errors
    /// If a file cannot be read or is larger than the form allows (4 GiB).
    pub fn bytes(&self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        for (name, text) in &self.descriptions {
            file(&mut out, name, text.as_bytes())?;
        }
        if !self.images.is_empty() {
            let folder =
                Builder::new(IMAGES).mode(0o755).set_mode_file_type(ModeFileType::Directory);
            folder.write(&mut out, 0).finish()?;
        }
        for (name, path) in &self.images {
            file(&mut out, name, &std::fs::read(path)?)?;
        }
        trailer(out)
    }
}

fn is_path(value: &&mut Value) -> bool {
    value.as_str().is_some_and(|text| text != NO_PATH)
}

fn file(out: &mut Vec<u8>, name: &str, contents: &[u8]) -> std::io::Result<()> {
    let size = u32::try_from(contents.len()).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
    let builder = Builder::new(name).mode(0o644).set_mode_file_type(ModeFileType::Regular);
    let mut writer = builder.write(out, size);
    std::io::copy(&mut Cursor::new(contents), &mut writer)?;
    writer.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;

    fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut reader = cpio::NewcReader::new(bytes).unwrap();
        while !reader.entry().is_trailer() {
            let mut contents = Vec::new();
            reader.read_to_end(&mut contents).unwrap();
            found.push((reader.entry().name().to_owned(), contents));
            reader = cpio::NewcReader::new(reader.finish().unwrap()).unwrap();
        }
        found
    }

    #[test]
    fn nothing_that_a_description_names_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = "[vm]\nname = \"x\"\n[vm.type1]\nkernel = \"kernel\"\ninitrd = \"initrd\"\n\
                    [[vm.type1.disks]]\npath = \"disk\"\n";
        let inputs = ["kernel", "initrd", "disk"];
        inputs.iter().for_each(|name| fs::write(at(name), name).unwrap());
        fs::write(at("vm.toml"), text).unwrap();
        fs::hard_link(at("disk"), at("another name")).unwrap();
        std::os::unix::fs::symlink(at("kernel"), at("link")).unwrap();
        for name in ["kernel", "initrd", "disk", "vm.toml", "another name", "link"] {
            let error = write(&[at("vm.toml")], &at(name)).unwrap_err();
            assert!(error.contains("an input") || error.contains("symbolic link"), "{error}");
        }
        inputs.iter().for_each(|name| assert_eq!(fs::read_to_string(at(name)).unwrap(), *name));
        assert_eq!(fs::read_to_string(at("vm.toml")).unwrap(), text);
        write(&[at("vm.toml")], &at("vm.cpio")).unwrap();
        assert!(fs::read(at("vm.cpio")).unwrap().starts_with(b"070701"));
    }

    #[test]
    fn files_are_there_once_and_descriptions_lead_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("b")).unwrap();
        fs::write(at("kernel"), b"one").unwrap();
        fs::write(at("b/kernel"), b"two").unwrap();
        let vm = |name: &str, kernel: &str| {
            format!(
                "[vm]\nname = \"{name}\"\nmemory = \"64M\"\n[vm.type1]\nkernel = \"{kernel}\"\n\
                 [[vm.type1.disks]]\npath = \"nvme0\"\n"
            )
        };
        fs::write(at("1.toml"), vm("first", "kernel")).unwrap();
        fs::write(at("2.toml"), vm("second", "b/kernel")).unwrap();
        fs::write(at("b/3.toml"), vm("third", "../kernel")).unwrap();
        let mut archive = Archive::default();
        for config in ["1.toml", "2.toml", "b/3.toml"] {
            archive.add(&at(config)).unwrap();
        }
        assert!(archive.add(&at("1.toml")).err().unwrap().contains("two VMs of the name first"));
        let entries = entries(&archive.bytes().unwrap());
        let names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
        let images = ["images", "images/2-kernel", "images/kernel"];
        assert_eq!(names, [&["first.toml", "second.toml", "third.toml"][..], &images].concat());
        assert_eq!(entries[5].1, b"one");
        for (index, kernel) in [(0, images[2]), (1, images[1]), (2, images[2])] {
            let text = String::from_utf8(entries[index].1.clone()).unwrap();
            let table: Table = text.parse().unwrap();
            assert_eq!(table["vm"]["type1"]["kernel"].as_str(), Some(kernel), "{text}");
            assert_eq!(table["vm"]["type1"]["disks"][0]["path"].as_str(), Some("nvme0"));
        }
    }

    #[test]
    fn modules_are_images_too() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let lists = [
            "modules = [{ path = \"linux\", cmdline = \"quiet\" }, { path = \"initrd\" }]\n",
            "[[vm.type1.modules]]\npath = \"linux\"\n[[vm.type1.modules]]\npath = \"initrd\"\n",
        ];
        for name in ["xen", "linux", "initrd"] {
            fs::write(at(name), name).unwrap();
        }
        for list in lists {
            let text = format!(
                "[vm]\nname = \"x\"\nmemory = \"64M\"\n[vm.type1]\nkernel = \"xen\"\n{list}"
            );
            let mut archive = Archive::default();
            archive.add_text("x", &text, folder.path()).unwrap();
            let entries = entries(&archive.bytes().unwrap());
            let names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names[2..], ["images/initrd", "images/linux", "images/xen"]);
            let text = String::from_utf8(entries[0].1.clone()).unwrap();
            let mut vm = hypervisor::config::VmConfig::from_toml(&text).unwrap();
            assert_eq!(vm.type1().modules[0].path, "images/linux");
            let mut found = Vec::new();
            crate::files::each(&mut vm, |_, path| found.push(path.clone()));
            assert_eq!(found, ["images/xen", "images/linux", "images/initrd"]);
        }
    }

    #[test]
    fn a_missing_image_is_named() {
        let mut archive = Archive::default();
        let text =
            "[vm]\nname = \"x\"\n[vm.hvt]\nunikernel = \"nowhere.hvt\"\nmanifest = \"auto\"\n";
        let error = archive.add_text("x", text, Path::new("/no")).unwrap_err();
        assert!(error.starts_with("/no/nowhere.hvt: "), "{error}");
    }
}
