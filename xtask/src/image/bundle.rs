//! `cargo xtask bundle`: descriptions of VMs and what they name, as one boot module.
//!
//! A file lies in it under its own name, a folder's files under their paths in the folder: a
//! description that names `hello.hvt` finds the file of that name.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::qemu::initramfs::Files;

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
    let mut files = Files::default();
    for path in paths {
        if path.is_dir() {
            add_folder(&mut files, "", path)?;
        } else {
            let name =
                path.file_name().with_context(|| format!("{} has no name", path.display()))?;
            files.add_file(&format!("/{}", name.to_string_lossy()), path)?;
        }
    }
    let bundle = files.archive()?;
    ensure!(u32::try_from(bundle.len()).is_ok(), "a boot module is smaller than 4 GiB");
    Ok(bundle)
}

fn add_folder(files: &mut Files, at: &str, folder: &Path) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let at = format!("{at}/{name}");
        if path.is_dir() {
            add_folder(files, &at, &path)?;
        } else if path.is_file() {
            files.add_file(&at, &path)?;
        }
    }
    Ok(())
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
}
