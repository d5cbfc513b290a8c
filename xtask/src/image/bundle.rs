//! `cargo xtask bundle`: descriptions of VMs and what they name, as one boot module.
//!
//! A file lies in it under its own name, a folder's files under their paths in the folder: a
//! description that names `hello.hvt` finds the file of that name. A description of a machine that
//! boots a disk and names no firmware gets SeaBIOS.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow};
use hypervisor::config::VmConfig;
use hypervisor::host::{Blob, HostError};
use hypervisor::memory::GuestSlice;
use vm_bundle::{Room, firmware};

use crate::process;
use crate::qemu::initramfs::Files;
use crate::setup::firmware::Firmware;

/// Options of `cargo xtask bundle`.
#[derive(clap::Args)]
pub struct Options {
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Files, and folders with all that is in them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Writes it.
pub fn run(options: &Options) -> Result<()> {
    let bundle = make(&options.paths)?;
    fs::write(&options.output, &bundle)
        .with_context(|| format!("cannot write {}", options.output.display()))?;
    process::say(&format!("{}: {} KiB", options.output.display(), bundle.len().div_ceil(1024)));
    Ok(())
}

/// The archive of these files and folders.
pub fn make(paths: &[PathBuf]) -> Result<Vec<u8>> {
    let mut bundle = Bundle::default();
    for path in paths {
        if path.is_dir() {
            bundle.add_folder("", path)?;
        } else {
            let name =
                path.file_name().with_context(|| format!("{} has no name", path.display()))?;
            bundle.add(&format!("/{}", name.to_string_lossy()), path)?;
        }
    }
    bundle.add_firmware()?;
    bundle.files.archive()
}

/// A bundle being made.
#[derive(Default)]
struct Bundle {
    files: Files,
    room: Room,
}

impl Bundle {
    fn add(&mut self, name: &str, from: &Path) -> Result<()> {
        let shown = from.display();
        let size = fs::metadata(from).with_context(|| format!("cannot read {shown}"))?.len();
        self.room.take(&shown.to_string(), size).map_err(Error::msg)?;
        self.files.add_file(name, from)
    }

    fn add_folder(&mut self, at: &str, folder: &Path) -> Result<()> {
        let entries =
            fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let at = format!("{at}/{name}");
            if path.is_dir() {
                self.add_folder(&at, &path)?;
            } else if path.is_file() {
                self.add(&at, &path)?;
            }
        }
        Ok(())
    }

    /// Looks through the descriptions: gives firmware to those that need it, and tells of those
    /// that the image will refuse.
    fn add_firmware(&mut self) -> Result<()> {
        let is_description = |path: &&str| path.ends_with(".toml");
        let names: Vec<_> = self.files.paths().filter(is_description).map(str::to_owned).collect();
        for name in names {
            let text = self.files.contents(&name).map(<[u8]>::to_vec).unwrap_or_default();
            let shown = name.trim_start_matches('/');
            let mut text = String::from_utf8(text).with_context(|| shown.to_owned())?;
            match VmConfig::from_toml(&text) {
                Ok(mut vm) => self.complete(&name, &mut vm, &mut text)?,
                Err(error) => process::say(&format!("{shown}: no VM will be made of it: {error}")),
            }
        }
        Ok(())
    }

    fn complete(&mut self, name: &str, vm: &mut VmConfig, text: &mut String) -> Result<()> {
        let is_disk = |image: &str| {
            let path = format!("/{}", image.trim_start_matches("./").trim_start_matches('/'));
            self.files.contents(&path).is_some_and(|bytes| firmware::is_disk(&Image(bytes)))
        };
        let mut found = None;
        let find = || {
            found = Some(sea_bios()?);
            Ok(FIRMWARE.to_owned())
        };
        let before = text.clone();
        firmware::fill(vm, text, is_disk, find)
            .map_err(|error| anyhow!("{}: {error}", name.trim_start_matches('/')))?;
        if *text != before {
            self.files.add_bytes(name, 0o644, text.clone().into_bytes());
        }
        found.map_or(Ok(()), |file| self.add(&format!("/{FIRMWARE}"), &file))
    }
}

/// Where SeaBIOS lies in a bundle.
const FIRMWARE: &str = "firmware/bios-256k.bin";

/// SeaBIOS: this machine's, or Debian's in the cache of packages.
fn sea_bios() -> Result<PathBuf, String> {
    firmware::installed().map(PathBuf::from).or_else(|missing| {
        let fetched = Firmware::SeaBios.file();
        fetched.map_err(|error| format!("{missing}; it cannot be fetched either: {error:#}"))
    })
}

/// A file of the bundle.
struct Image<'a>(&'a [u8]);

impl Blob for Image<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError> {
        Blob::read_at(self.0, offset, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_under_their_names_and_folders_open() {
        let folder = std::env::temp_dir().join(format!("bundle-{}", std::process::id()));
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("a.toml"), "a").unwrap();
        fs::write(folder.join("sub/b"), "b").unwrap();
        let bundle = make(&[folder.clone(), folder.join("sub/b")]).unwrap();
        let names: Vec<_> = host_baremetal::bundle::files(&bundle)
            .map(|entry| entry.map(|entry| entry.name.to_owned()).unwrap())
            .collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["a.toml", "b", "sub/b"]);
        assert!(make(&[folder]).is_err());
    }

    #[test]
    fn what_does_not_fit_is_told_before_it_is_read() {
        let file = std::env::temp_dir().join(format!("large-{}.iso", std::process::id()));
        fs::File::create(&file).unwrap().set_len(5 << 30).unwrap();
        let error = make(std::slice::from_ref(&file)).unwrap_err().to_string();
        fs::remove_file(&file).unwrap();
        assert!(error.contains(".iso: it has 5G, and a boot module is smaller than 4G"), "{error}");
    }
}
