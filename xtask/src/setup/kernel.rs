//! The Linux that test machines boot: a Debian kernel package, unpacked, not installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::programs;

/// The long-term series that the figures in docs/ were measured with.
const SERIES: (u32, u32) = (6, 12);

/// An unpacked kernel package.
pub struct Kernel {
    /// `6.12.…-amd64`, as `uname -r` has it.
    pub version: String,
    /// The bootable image.
    pub image: PathBuf,
    modules: PathBuf,
}

/// The kernel, fetched if absent.
pub fn get() -> Result<Kernel> {
    let folder = programs::packages()?.join("linux-image");
    if find(&folder).is_none() {
        let apt = programs::debian()?;
        let names = apt.names("linux-image-")?;
        let package = newest(&names)
            .context("the mirror has no package linux-image-*-amd64: is it a Debian mirror?")?;
        apt.unpack(package, false, &folder)?;
    }
    find(&folder).with_context(|| format!("no kernel in {}: remove it", folder.display()))
}

fn find(folder: &Path) -> Option<Kernel> {
    for entry in fs::read_dir(folder.join("boot")).ok()? {
        let image = entry.ok()?.path();
        if let Some(version) = image.file_name()?.to_str()?.strip_prefix("vmlinuz-") {
            let modules = ["lib/modules", "usr/lib/modules"]
                .map(|place| folder.join(place).join(version))
                .into_iter()
                .find(|place| place.exists())?;
            return Some(Kernel { version: version.to_owned(), image, modules });
        }
    }
    None
}

/// Of packages `linux-image-6.12.95+deb12-amd64`, `…-rt-amd64`, `…-cloud-amd64`, `…-dbg`: the
/// plain one of our series, else of the newest, with the highest version.
fn newest(names: &[String]) -> Option<&str> {
    let key = |name: &str| -> Option<(bool, Vec<u32>)> {
        let version = name.strip_prefix("linux-image-")?.strip_suffix("-amd64")?;
        if version.ends_with("-rt") || version.ends_with("-cloud") {
            return None;
        }
        let numbers: Vec<u32> = version
            .split(|c: char| !c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .map_while(|part| part.parse().ok())
            .collect();
        let ours = (*numbers.first()?, *numbers.get(1)?) == SERIES;
        Some((ours, numbers))
    };
    let keyed = names.iter().filter_map(|name| Some((key(name)?, name.as_str())));
    keyed.max().map(|(_, name)| name)
}

impl Kernel {
    /// Modules by name with all they depend on, each as (file name, contents), in loading order.
    /// A name that the kernel has built in is no module and is left out.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let builtin = fs::read_to_string(self.modules.join("modules.builtin"))?;
        let mut loader = Loader { kernel: self, builtin, seen: BTreeSet::new(), loaded: vec![] };
        for name in names {
            loader.add(name)?;
        }
        Ok(loader.loaded)
    }
}

struct Loader<'a> {
    kernel: &'a Kernel,
    builtin: String,
    seen: BTreeSet<String>,
    loaded: Vec<(String, Vec<u8>)>,
}

impl Loader<'_> {
    fn add(&mut self, name: &str) -> Result<()> {
        // The kernel takes `-` and `_` in a module's name as one; files have either.
        let name = name.replace('-', "_");
        if !self.seen.insert(name.clone()) || self.is_builtin(&name) {
            return Ok(());
        }
        let path = find_module(&self.kernel.modules.join("kernel"), &name)?
            .with_context(|| format!("Linux {} has no module {name}", self.kernel.version))?;
        let contents = decompressed(&path)?;
        for dependency in dependencies(&contents) {
            self.add(&dependency)?;
        }
        self.loaded.push((format!("{name}.ko"), contents));
        Ok(())
    }

    fn is_builtin(&self, name: &str) -> bool {
        self.builtin.lines().any(|line| module_name(Path::new(line)).as_deref() == Some(name))
    }
}

fn find_module(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(found) = find_module(&path, name)? {
                return Ok(Some(found));
            }
        } else if module_name(&path).as_deref() == Some(name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// `kvm-amd.ko.xz` is module `kvm_amd`.
fn module_name(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(fs::read(path)?),
        Some("xz") => {
            let mut unpack = Command::new(programs::busybox()?);
            unpack.args(["xz", "-dc"]).arg(path).stdin(Stdio::null());
            let output = unpack.output()?;
            ensure!(output.status.success(), "busybox cannot decompress {}", path.display());
            Ok(output.stdout)
        }
        _ => bail!("{} is compressed in a way this does not know", path.display()),
    }
}

/// The names in a module's `depends=` entry (section `.modinfo`: strings that each end in NUL).
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{dependencies, newest};

    #[test]
    fn our_series_wins_over_a_newer_one_and_plain_over_flavours() {
        let names = [
            "linux-image-6.1.0-50-amd64",
            "linux-image-6.12.9+deb12-amd64",
            "linux-image-6.12.95+deb12-amd64",
            "linux-image-6.12.99+deb12-rt-amd64",
            "linux-image-6.12.99+deb12-amd64-dbg",
            "linux-image-7.3.4+deb13-amd64",
            "linux-image-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&names), Some("linux-image-6.12.95+deb12-amd64"));
        assert_eq!(newest(&names[5..]), Some("linux-image-7.3.4+deb13-amd64"));
        assert_eq!(newest(&names[6..]), None);
    }

    #[test]
    fn a_modules_dependencies_are_read_from_its_own_text() {
        assert_eq!(dependencies(b"\x7fELF\0depends=kvm,ccp\0intree=Y\0"), ["kvm", "ccp"]);
        assert!(dependencies(b"\0depends=\0").is_empty());
        assert!(dependencies(b"no such entry").is_empty());
    }
}
