//! A VM's description: read, checked, with the mode that it gets and why.

use crate::files;
use host_linux::blob::FileBlob;
use host_linux::clock::HostClock;
use hypervisor::config::VmConfig;
use hypervisor::config::file::{ConfigFile, MAX_LENGTH};
use hypervisor::host::Blob;
use hypervisor::mode::{Hypervisor, ModeKind, Resolved};
use hypervisor::vm::Limits;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use vm_bundle::firmware;

/// A description that holds together.
pub struct Description {
    /// Its text, with the firmware that it gets where it needs one and names none.
    pub text: String,
    /// What it says, with every path relative to this process.
    pub vm: VmConfig,
    /// The mode that the VM gets.
    pub resolved: Resolved,
}

impl Description {
    /// Reads it, and looks at the image that it names.
    ///
    /// # Errors
    /// In words for a person.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let mut text = text(path).map_err(|e| format!("{shown}: {e}"))?;
        let file = ConfigFile::parse(&text).map_err(|e| format!("{shown}: {e}"))?;
        let mut vm = file.vm.ok_or_else(|| {
            format!("{shown}: there is no VM in it: write [vm], and name = \"my-vm\" under it")
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        files::each(&mut vm, |_, name| *name = beside(folder, name));
        // A mode that is named needs no look at the image.
        let unnamed = vm.explicit_mode().is_none();
        let image = vm.boot_image().filter(|_| unnamed).map(open).transpose()?;
        let front = Hypervisor::new(file.hypervisor, Limits::NONE, Arc::new(HostClock::new()));
        let image = image.as_ref().map(|blob| blob as &dyn Blob);
        let resolved = front.resolve(&vm, image).map_err(|e| format!("{shown}: {e}"))?;
        let is_disk = |path: &str| open(path).is_ok_and(|blob| firmware::is_disk(&blob));
        firmware::fill(&mut vm, &mut text, is_disk, firmware::installed)
            .map_err(|e| format!("{shown}: {e}"))?;
        vm.validate(resolved.mode).map_err(|e| format!("{shown}: {e}"))?;
        Ok(Self { text, vm, resolved })
    }

    /// The mode.
    pub fn mode(&self) -> ModeKind {
        self.resolved.mode
    }
}

/// What is in the file, or the beginning of what is too long for a description.
fn text(path: &Path) -> Result<String, String> {
    let most = u64::try_from(MAX_LENGTH).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        // Cut off inside of a character: the parser has words for what is too long.
        Err(error) if error.utf8_error().error_len().is_none() => {
            Ok(String::from_utf8_lossy(error.as_bytes()).into_owned())
        }
        Err(_) => Err("it is no text in UTF-8, as a VM's description in TOML is: write one that \
                       names this file, image = \"FILE\" under [vm]"
            .to_owned()),
    }
}

/// A path in a description, which is relative to its folder.
pub fn beside(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().map_or_else(|| name.to_owned(), str::to_owned)
}

fn open(path: &str) -> Result<FileBlob, String> {
    FileBlob::open(path.as_ref()).map_err(|e| format!("{path}: cannot open the image: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_description() {
        assert_eq!(beside(Path::new("a/b"), "../c"), "a/b/../c");
        assert_eq!(beside(Path::new(""), "c"), "c");
        assert_eq!(beside(Path::new("a"), "/c"), "/c");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file_in_front() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let path = folder.path().join("vm.toml");
            std::fs::write(&path, text).unwrap();
            Description::read(&path)
        };
        let wrong = |text| read(text).err().unwrap();
        assert!(wrong("[vm]\nname = \"x\"\nmemroy = 1\n").contains("did you mean `memory`?"));
        assert!(wrong("").contains("there is no VM in it"));
        let path = folder.path().join("kernel");
        std::fs::write(&path, vec![0xff; 3 << 20]).unwrap();
        let error = Description::read(&path).err().unwrap();
        assert!(error.contains("kernel: it is no text in UTF-8"), "{error}");
        assert!(wrong("[vm]\nname = \"x\"\nimage = \"y\"\n").contains("cannot open the image"));
        let good = read("[vm]\nname = \"x\"\n[vm.type1]\nkernel = \"k\"\n").unwrap();
        assert_eq!(good.mode(), ModeKind::Type1);
    }
}
