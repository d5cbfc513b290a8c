//! Files that a program writes because its user named them: counters, archives.
//!
//! [`OutputFile::create`] makes a new file beside the path, under another name;
//! [`OutputFile::finish`] gives it its name. So nothing that lies at the path is ever opened, let
//! alone truncated: another program sees the old file or the whole new one, and a failure leaves
//! the old one. A file that was created and not finished is removed when it is dropped.
//!
//! Refused are: a path whose last part is a symbolic link (whoever can write to the folder would
//! choose what is replaced), anything but a regular file, and a file that is also an input. Inputs
//! are compared by device and inode, so that another spelling or a hard link does not hide one.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fchmod, openat, renameat, stat, statat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

/// Names that are tried for the file beside.
const TRIES: u32 = 1000;

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The path ends in a symbolic link.
    #[error("{}: this is a symbolic link, which is not written through: name the file itself", .0.display())]
    Link(PathBuf),
    /// Something that is no regular file lies there.
    #[error("{}: this is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// It is also read.
    #[error("{}: this is also an input ({}), which writing would destroy: name another file", .output.display(), .input.display())]
    Input {
        /// The path that was to be written.
        output: PathBuf,
        /// The path under which it is read.
        input: PathBuf,
    },
    /// No file can be made in the folder.
    #[error("{}: no file can be created in its folder, where it is written before it gets its name: {}", .0.display(), words(*.1))]
    Folder(PathBuf, Errno),
    /// The system refuses it.
    #[error("{}: {}", .0.display(), words(*.1))]
    System(PathBuf, Errno),
}

/// A file that is being written.
#[derive(Debug)]
pub struct OutputFile {
    directory: OwnedFd,
    path: PathBuf,
    /// The name that it has until it is finished.
    temporary: Option<OsString>,
    file: OwnedFd,
}

impl OutputFile {
    /// Creates the file, without its name as yet. `inputs` are the paths of all files that the
    /// program reads or lends to a guest; those that do not exist do not count.
    ///
    /// # Errors
    /// If the path must not be replaced, or the folder takes no new file.
    pub fn create<P: AsRef<Path>>(
        path: &Path,
        inputs: impl IntoIterator<Item = P>,
    ) -> Result<Self, OutputError> {
        let name = path.file_name().ok_or_else(|| OutputError::NotAFile(path.to_owned()))?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, folder, flags, Mode::empty())
            .map_err(|e| OutputError::System(path.to_owned(), e))?;
        let mode = replaceable(&directory, name, path, inputs)?;
        let (temporary, file) =
            beside(&directory, name).map_err(|e| OutputError::Folder(path.to_owned(), e))?;
        let new = Self { directory, path: path.to_owned(), temporary: Some(temporary), file };
        if let Some(mode) = mode {
            fchmod(&new.file, mode).map_err(|e| new.failed(e))?;
        }
        Ok(new)
    }

    /// The descriptor to write to.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Gives the file its name, in the place of what had it.
    ///
    /// # Errors
    /// The system's; then the old file is as it was and the new one is gone.
    pub fn finish(mut self) -> Result<OwnedFd, OutputError> {
        let file = rustix::io::dup(&self.file).map_err(|e| self.failed(e))?;
        let name = self.path.file_name().unwrap_or_default();
        if let Some(temporary) = &self.temporary {
            renameat(&self.directory, temporary, &self.directory, name)
                .map_err(|e| self.failed(e))?;
        }
        self.temporary = None;
        Ok(file)
    }

    fn failed(&self, errno: Errno) -> OutputError {
        OutputError::System(self.path.clone(), errno)
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // There is nobody to tell where that fails.
            let _ = unlinkat(&self.directory, temporary, AtFlags::empty());
        }
    }
}

impl io::Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.file, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a file whole, or leaves what was there. A device or a pipe, such as /dev/stdout, is
/// written to as it is.
///
/// # Errors
/// As [`OutputFile::create`]; or the system's, where the file does not fit.
pub fn write<P: AsRef<Path>>(
    path: &Path,
    inputs: impl IntoIterator<Item = P>,
    bytes: &[u8],
) -> Result<(), OutputError> {
    let failed = |e: Errno| OutputError::System(path.to_owned(), e);
    if is_stream(path) {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
        return write_all(file.as_fd(), bytes).map_err(failed);
    }
    let output = OutputFile::create(path, inputs)?;
    write_all(output.fd(), bytes).map_err(failed)?;
    output.finish().map(drop)
}

/// The system's error in words, with what to do where its own words do not say.
pub fn words(errno: Errno) -> String {
    match errno {
        Errno::FBIG => format!("{errno}: the limit of file sizes, `ulimit -f`, is too small"),
        _ => errno.to_string(),
    }
}

/// Whether it is written to in sequence and keeps nothing that could be destroyed.
fn is_stream(path: &Path) -> bool {
    stat(path).is_ok_and(|there| {
        matches!(kind(&there), FileType::Fifo | FileType::CharacterDevice | FileType::Socket)
    })
}

fn kind(of: &Stat) -> FileType {
    FileType::from_raw_mode(of.st_mode)
}

/// Says that what has the name may be replaced, and gives its permissions if there is anything.
fn replaceable<P: AsRef<Path>>(
    directory: &OwnedFd,
    name: &OsStr,
    path: &Path,
    inputs: impl IntoIterator<Item = P>,
) -> Result<Option<Mode>, OutputError> {
    let there = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(OutputError::System(path.to_owned(), e)),
        Ok(there) => there,
    };
    match kind(&there) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(OutputError::Link(path.to_owned())),
        _ => return Err(OutputError::NotAFile(path.to_owned())),
    }
    let is_same = |input: &P| {
        stat(input.as_ref()).is_ok_and(|s| (s.st_dev, s.st_ino) == (there.st_dev, there.st_ino))
    };
    match inputs.into_iter().find(is_same) {
        Some(input) => {
            Err(OutputError::Input { output: path.to_owned(), input: input.as_ref().to_owned() })
        }
        None => Ok(Some(Mode::from_raw_mode(there.st_mode & 0o777))),
    }
}

/// A new file in the directory, which nobody else has opened.
fn beside(directory: &OwnedFd, name: &OsStr) -> Result<(OsString, OwnedFd), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let process = rustix::process::getpid().as_raw_nonzero();
    for number in 0..TRIES {
        // As long as the name may be, and no longer: names have 255 bytes at most.
        let mut temporary = OsString::from(format!(".{process}-{number}."));
        temporary.push(if name.len() < 200 { name } else { OsStr::new("new") });
        match openat(directory, &temporary, flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => return Ok((temporary, file)),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::EXIST)
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
