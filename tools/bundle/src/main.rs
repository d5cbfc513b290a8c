//! `vm-bundle --output FILE [--firmware FILE] PATH...`: descriptions of VMs and what they name, as
//! one boot module; the part of `cargo xtask bundle` that reads descriptions.
//!
//! A file lies in it under its own name, a folder's files under their paths in the folder: a
//! description that names `hello.hvt` finds the file of that name. A description of a machine that
//! boots a disk and names no firmware gets SeaBIOS: this machine's, else the file of `--firmware`.
//! The status is [`NO_FIRMWARE`] where there is neither, and 1 for every other failure.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Error, Result, anyhow, bail};
use host_program::output;
use hypervisor::config::VmConfig;
use vm_bundle::{Files, NO_FIRMWARE, Room, firmware};

fn main() -> ExitCode {
    host_program::inherited::settle();
    let mut bundle = Bundle::default();
    match Options::parse(std::env::args_os().skip(1)).and_then(|options| bundle.write(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if bundle.lacks_firmware => ExitCode::from(NO_FIRMWARE),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Options {
    output: PathBuf,
    firmware: Option<PathBuf>,
    paths: Vec<PathBuf>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().map(PathBuf::from);
            match argument.to_str() {
                Some("--output") => options.output = value().context("--output takes a file")?,
                Some("--firmware") => options.firmware = value(),
                _ => options.paths.push(argument.into()),
            }
        }
        if options.output.as_os_str().is_empty() || options.paths.is_empty() {
            bail!("vm-bundle --output FILE [--firmware FILE] PATH...");
        }
        Ok(options)
    }
}

/// A bundle being made.
#[derive(Default)]
struct Bundle {
    files: Files,
    /// What is in it, which must not be written over.
    inputs: Vec<PathBuf>,
    room: Room,
    lacks_firmware: bool,
}

impl Bundle {
    fn write(&mut self, options: &Options) -> Result<()> {
        self.add_all(&options.paths)?;
        self.add_firmware(options.firmware.as_deref())?;
        let archive = std::mem::take(&mut self.files).archive()?;
        let output = &options.output;
        Ok(output::write(output, &self.inputs, &archive)?)
    }

    fn add_all(&mut self, paths: &[PathBuf]) -> Result<()> {
        for path in paths {
            if path.is_dir() {
                self.add_folder("", path)?;
            } else {
                let name =
                    path.file_name().with_context(|| format!("{} has no name", path.display()))?;
                self.add(&format!("/{}", name.to_string_lossy()), path)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, from: &Path) -> Result<()> {
        let shown = from.display();
        let size = fs::metadata(from).with_context(|| format!("cannot read {shown}"))?.len();
        self.room.take(&shown.to_string(), size).map_err(Error::msg)?;
        self.inputs.push(from.to_owned());
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
    fn add_firmware(&mut self, other: Option<&Path>) -> Result<()> {
        let is_description = |path: &&str| path.ends_with(".toml");
        let names: Vec<_> = self.files.paths().filter(is_description).map(str::to_owned).collect();
        for name in names {
            let text = self.files.contents(&name).cloned().unwrap_or_default();
            let shown = name.trim_start_matches('/');
            let mut text = String::from_utf8(text).with_context(|| shown.to_owned())?;
            match VmConfig::from_toml(&text) {
                Ok(mut vm) => self.complete(&name, &mut vm, &mut text, other)?,
                Err(error) => eprintln!("==> {shown}: no VM will be made of it: {error}"),
            }
        }
        Ok(())
    }

    fn complete(
        &mut self,
        name: &str,
        vm: &mut VmConfig,
        text: &mut String,
        other: Option<&Path>,
    ) -> Result<()> {
        let is_disk = |image: &str| {
            let path = format!("/{}", image.trim_start_matches("./").trim_start_matches('/'));
            self.files.contents(&path).is_some_and(|bytes| firmware::is_disk(bytes))
        };
        let (mut found, mut lacks) = (None, false);
        let find = || {
            let installed = firmware::installed().map(PathBuf::from);
            let file = installed.or_else(|missing| other.map(Path::to_owned).ok_or(missing));
            lacks = file.is_err();
            found = Some(file?);
            Ok(FIRMWARE.to_owned())
        };
        let before = text.clone();
        let filled = firmware::fill(vm, text, is_disk, find);
        self.lacks_firmware |= lacks;
        filled.map_err(|error| anyhow!("{}: {error}", name.trim_start_matches('/')))?;
        if *text != before {
            self.files.add_bytes(name, 0o644, text.clone().into_bytes());
        }
        found.map_or(Ok(()), |file| self.add(&format!("/{FIRMWARE}"), &file))
    }
}

/// Where SeaBIOS lies in a bundle.
const FIRMWARE: &str = "firmware/bios-256k.bin";

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(paths: &[PathBuf]) -> Result<Vec<u8>> {
        let mut bundle = Bundle::default();
        bundle.add_all(paths)?;
        bundle.files.archive()
    }

    #[test]
    fn files_lie_under_their_names_and_folders_open() {
        let folder = std::env::temp_dir().join(format!("bundle-{}", std::process::id()));
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(folder.join("a.toml"), "a").unwrap();
        fs::write(folder.join("sub/b"), "b").unwrap();
        let bundle = bundle(&[folder.clone(), folder.join("sub/b")]).unwrap();
        let names: Vec<_> = host_baremetal::bundle::files(&bundle)
            .map(|entry| entry.map(|entry| entry.name.to_owned()).unwrap())
            .collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["a.toml", "b", "sub/b"]);
        assert!(super::tests::bundle(&[folder]).is_err());
    }

    #[test]
    fn what_does_not_fit_is_told_before_it_is_read() {
        let file = std::env::temp_dir().join(format!("large-{}.iso", std::process::id()));
        fs::File::create(&file).unwrap().set_len(5 << 30).unwrap();
        let error = bundle(std::slice::from_ref(&file)).unwrap_err().to_string();
        fs::remove_file(&file).unwrap();
        assert!(error.contains(".iso: it has 5G, and a boot module is smaller than 4G"), "{error}");
    }
}
