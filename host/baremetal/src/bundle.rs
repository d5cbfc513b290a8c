//! The boot module: one archive with descriptions of VMs and what they name, in cpio's "newc"
//! form (cpio(5); Linux, "initramfs buffer format"), which `cargo xtask bundle` and every cpio
//! program write.
//!
//! Nothing is copied: a file is a range of the module. Names are looked up without a leading `/`
//! or `./`.

use core::ops::Range;

const MAGICS: [&[u8]; 2] = [b"070701", b"070702"];
const HEADER: usize = 110;
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const END: &str = "TRAILER!!!";

/// A file of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name, without a leading `/` or `./`.
    pub name: &'a str,
    /// Where its contents are in the archive.
    pub range: Range<usize>,
}

/// Why an archive cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// There is no header where one should be.
    #[error(
        "the boot module is no cpio archive in \"newc\" form (at byte {0}): make it with `cargo xtask bundle`"
    )]
    Magic(usize),
    /// A number in a header is none.
    #[error(
        "the boot module's header at byte {0} is broken: make it again with `cargo xtask bundle`"
    )]
    Header(usize),
    /// It ends within a file.
    #[error("the boot module ends within the file at byte {0}: it was cut off")]
    Short(usize),
}

/// Reads through an archive: its regular files, in order.
pub struct Files<'a> {
    archive: &'a [u8],
    at: usize,
    over: bool,
}

/// The files of an archive.
pub fn files(archive: &[u8]) -> Files<'_> {
    Files { archive, at: 0, over: false }
}

/// A name as it is looked up.
pub fn plain(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./").or_else(|| name.strip_prefix('/')) {
        name = rest;
    }
    name
}

/// The file of this name.
///
/// # Errors
/// [`BundleError`] if the archive is broken before it.
pub fn find(archive: &[u8], name: &str) -> Result<Option<Range<usize>>, BundleError> {
    for entry in files(archive) {
        let entry = entry?;
        if entry.name == plain(name) {
            return Ok(Some(entry.range));
        }
    }
    Ok(None)
}

impl<'a> Files<'a> {
    /// The next entry of any type; `None` at the end.
    fn entry(&mut self) -> Result<Option<(Entry<'a>, bool)>, BundleError> {
        let start = self.at;
        let header = self.archive.get(start..start.saturating_add(HEADER));
        // A loader may have padded the module with zeros.
        let rest = self.archive.get(start..).unwrap_or(&[]);
        if rest.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = header.ok_or(BundleError::Magic(start))?;
        if !MAGICS.iter().any(|magic| header.starts_with(magic)) {
            return Err(BundleError::Magic(start));
        }
        let broken = BundleError::Header(start);
        let field = |index: usize| number(header, index).ok_or(broken);
        let (mode, size, name_size) = (field(1)?, field(6)?, field(11)?);
        let usize = |number: u32| usize::try_from(number).map_err(|_| broken);
        let (size, name_size) = (usize(size)?, usize(name_size)?);
        let name_at = start + HEADER;
        let short = BundleError::Short(start);
        let name_end = name_at.checked_add(name_size).ok_or(short)?;
        let name = self.archive.get(name_at..name_end).ok_or(short)?;
        let name = name.strip_suffix(&[0]).ok_or(broken)?;
        let name = core::str::from_utf8(name).map_err(|_| broken)?;
        let from = name_end.next_multiple_of(4);
        let to = from.checked_add(size).filter(|end| *end <= self.archive.len()).ok_or(short)?;
        self.at = to.next_multiple_of(4);
        if name == END {
            return Ok(None);
        }
        Ok(Some((Entry { name: plain(name), range: from..to }, mode & FILE_TYPE == REGULAR)))
    }
}

impl<'a> Iterator for Files<'a> {
    type Item = Result<Entry<'a>, BundleError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            match self.entry() {
                Ok(Some((entry, true))) => return Some(Ok(entry)),
                Ok(Some((_, false))) => {}
                Ok(None) => self.over = true,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// A header's field: eight hexadecimal digits each, after the magic number.
fn number(header: &[u8], index: usize) -> Option<u32> {
    let digits = header.get(6 + 8 * index..14 + 8 * index)?;
    digits
        .iter()
        .try_fold(0, |value, digit| char::from(*digit).to_digit(16).map(|digit| value << 4 | digit))
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use std::format;
    use std::vec::Vec;

    fn add(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
        let size = data.len();
        let name_size = name.len() + 1;
        archive.extend(format!("070701{:08x}{mode:08x}{:048x}", 1, 0).bytes().take(6 + 16));
        archive.extend(format!("{:08x}{:08x}{:08x}{:08x}", 0, 0, 1, 0).bytes());
        archive.extend(format!("{size:08x}{:032x}{name_size:08x}{:08x}", 0, 0).bytes());
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }

    fn archive() -> Vec<u8> {
        let mut archive = Vec::new();
        add(&mut archive, ".", 0o40_755, b"");
        add(&mut archive, "./a.toml", 0o100_644, b"12345");
        add(&mut archive, "dir", 0o40_755, b"");
        add(&mut archive, "/dir/b", 0o100_755, b"");
        add(&mut archive, END, 0, b"");
        archive
    }

    #[test]
    fn regular_files_are_found() {
        let bytes = archive();
        let entries: Vec<_> = files(&bytes).map(Result::unwrap).collect();
        assert_eq!(entries.iter().map(|e| e.name).collect::<Vec<_>>(), ["a.toml", "dir/b"]);
        assert_eq!(&bytes[entries[0].range.clone()], b"12345");
        assert_eq!(find(&bytes, "/./a.toml"), Ok(Some(entries[0].range.clone())));
        assert_eq!(find(&bytes, "c"), Ok(None));
        let padded = [&bytes[..], &[0; 1000]].concat();
        assert_eq!(files(&padded).count(), 2);
        assert_eq!(files(&[]).count(), 0);
    }

    #[test]
    fn broken_archives_are_errors_and_end() {
        assert_eq!(files(b"hello").last(), Some(Err(BundleError::Magic(0))));
        let bytes = archive();
        for length in 1..bytes.len() {
            for entry in files(&bytes[..length]).flatten() {
                assert!(entry.range.end <= length);
            }
        }
        let mut huge = bytes.clone();
        huge[54..62].copy_from_slice(b"ffffffff");
        assert_eq!(files(&huge).next(), Some(Err(BundleError::Short(0))));
        huge[54..62].copy_from_slice(b"zzzzzzzz");
        assert_eq!(files(&huge).next(), Some(Err(BundleError::Header(0))));
        let mut name = bytes.clone();
        name[94..102].copy_from_slice(b"fffffffe");
        assert_eq!(files(&name).next(), Some(Err(BundleError::Short(0))));
    }
}
