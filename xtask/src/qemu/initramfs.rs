//! Programs of this machine among the files of a test machine, which Linux unpacks at boot.

use std::path::{Path, PathBuf};

use anyhow::Result;
pub use vm_bundle::Files;

/// What the files of a test machine take besides.
pub trait Programs {
    /// A program and, where it is dynamic, its interpreter and libraries at their own paths.
    fn add_program(&mut self, path: &str, from: &Path) -> Result<()>;

    /// A program that was fetched with some of its libraries, which lie in `folders`: those go
    /// where every program finds them.
    fn add_fetched(&mut self, path: &str, from: &Path, folders: &[PathBuf]) -> Result<()>;
}

impl Programs for Files {
    fn add_program(&mut self, path: &str, from: &Path) -> Result<()> {
        for library in super::libraries(from) {
            self.add_file(&library.display().to_string(), &library)?;
        }
        self.add_file(path, from)
    }

    fn add_fetched(&mut self, path: &str, from: &Path, folders: &[PathBuf]) -> Result<()> {
        for library in super::libraries_in(from, folders) {
            let fetched = folders.iter().any(|folder| library.starts_with(folder));
            let place = match library.file_name().filter(|_| fetched) {
                Some(name) => Path::new("/lib/x86_64-linux-gnu").join(name),
                None => library.clone(),
            };
            self.add_file(&place.display().to_string(), &library)?;
        }
        self.add_file(path, from)
    }
}
