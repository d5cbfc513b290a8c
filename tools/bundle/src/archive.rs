//! Files as one archive: a boot module of our image, or what Linux unpacks at boot.
//!
//! The format is cpio's "newc" (Linux, Documentation/driver-api/early-userspace/
//! buffer-format.rst), not compressed: it is read from memory once.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType};

/// Files by absolute path; a later one replaces an earlier one of the same path.
#[derive(Default)]
pub struct Files(BTreeMap<String, Entry>);

struct Entry {
    kind: ModeFileType,
    mode: u32,
    contents: Vec<u8>,
}

impl Files {
    /// A file with these contents and permission bits.
    pub fn add_bytes(&mut self, path: &str, mode: u32, contents: Vec<u8>) {
        self.add(path, Entry { kind: ModeFileType::Regular, mode, contents });
    }

    /// A symbolic link.
    pub fn add_link(&mut self, path: &str, target: &str) {
        let contents = target.as_bytes().to_vec();
        self.add(path, Entry { kind: ModeFileType::Symlink, mode: 0o777, contents });
    }

    /// A copy of a file of this machine, executable.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn add_file(&mut self, path: &str, from: &Path) -> Result<()> {
        let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add_bytes(path, 0o755, contents);
        Ok(())
    }

    /// What a file has in it.
    pub fn contents(&self, path: &str) -> Option<&Vec<u8>> {
        self.0.get(path).map(|entry| &entry.contents)
    }

    /// The paths of all files.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All that is in a folder, its sub-folders too; a symbolic link stays one.
    ///
    /// # Errors
    /// If something of it cannot be read.
    pub fn add_folder(&mut self, path: &str, from: &Path) -> Result<()> {
        let entries =
            fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
        for entry in entries {
            let entry = entry?;
            let to = format!("{path}/{}", entry.file_name().to_string_lossy());
            let (at, kind) = (entry.path(), entry.file_type()?);
            if kind.is_symlink() {
                self.add_link(&to, &fs::read_link(&at)?.to_string_lossy());
            } else if kind.is_dir() {
                self.add_folder(&to, &at)?;
            } else if kind.is_file() {
                self.add_file(&to, &at)?;
            }
        }
        Ok(())
    }

    /// The archive, a folder before what is in it.
    ///
    /// # Errors
    /// If a file has 4 GiB or more.
    pub fn archive(self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for (number, (path, entry)) in (1..).zip(self.0) {
            let mut writer = Builder::new(path.trim_start_matches('/'))
                .ino(number)
                .nlink(1)
                .mode(entry.mode)
                .set_mode_file_type(entry.kind)
                .write(&mut out, u32::try_from(entry.contents.len())?);
            std::io::copy(&mut Cursor::new(entry.contents), &mut writer)?;
            writer.finish()?;
        }
        cpio::newc::trailer(out).context("cannot end the archive")
    }

    fn add(&mut self, path: &str, entry: Entry) {
        for (at, _) in path.match_indices('/').skip(1) {
            let folder = Entry { kind: ModeFileType::Directory, mode: 0o755, contents: Vec::new() };
            self.0.entry(path[..at].to_owned()).or_insert(folder);
        }
        self.0.insert(path.to_owned(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::Files;

    /// Names and modes of what an archive holds.
    fn listed(archive: &[u8]) -> Vec<(String, u32)> {
        let mut names = vec![];
        let mut reader = cpio::NewcReader::new(archive).unwrap();
        while !reader.entry().is_trailer() {
            names.push((reader.entry().name().to_owned(), reader.entry().mode()));
            reader = cpio::NewcReader::new(reader.finish().unwrap()).unwrap();
        }
        names
    }

    #[test]
    fn a_folder_comes_with_all_that_is_below_it() {
        let root = std::env::temp_dir().join(format!("xtask-folder-{}", std::process::id()));
        std::fs::create_dir_all(root.join("inner")).unwrap();
        std::fs::write(root.join("inner/file"), "text").unwrap();
        std::os::unix::fs::symlink("inner/file", root.join("link")).unwrap();
        let mut files = Files::default();
        let added = files.add_folder("/to", &root);
        std::fs::remove_dir_all(&root).unwrap();
        added.unwrap();
        let names = listed(&files.archive().unwrap());
        let expected = [
            ("to", 0o040_755),
            ("to/inner", 0o040_755),
            ("to/inner/file", 0o100_755),
            ("to/link", 0o120_777),
        ];
        assert_eq!(names, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }

    #[test]
    fn the_archive_holds_folders_before_files_and_ends_with_the_trailer() {
        let mut files = Files::default();
        files.add_bytes("/a/b/c", 0o644, b"text".to_vec());
        files.add_link("/a/l", "b/c");
        let archive = files.archive().unwrap();
        let names = listed(&archive);
        let expected =
            [("a", 0o040_755), ("a/b", 0o040_755), ("a/b/c", 0o100_644), ("a/l", 0o120_777)];
        assert_eq!(names, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }
}
