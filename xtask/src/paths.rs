//! Where things are: the source tree, what cargo builds into, and the cache of fetched packages
//! (outside the tree, so a fresh clone on the same machine fetches nothing twice).

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the source tree.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR`, else `target` in the tree.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => env::current_dir().unwrap_or_default().join(directory),
        None => root().join("target"),
    }
}

/// The built tender.
pub fn tender() -> PathBuf {
    target().join("redox-hvt")
}

/// The built VM manager.
pub fn manager() -> PathBuf {
    target().join("redox-vm")
}

/// The folder of built unikernels, `NAME.hvt` each.
pub fn unikernels() -> PathBuf {
    target().join("unikernels")
}

/// Scratch space for one kind of work, made if absent.
pub fn work(name: &str) -> Result<PathBuf> {
    make(target().join("xtask").join(name))
}

/// The cache of fetched packages, `$XDG_CACHE_HOME/redox-hypervisor` or in `~/.cache`, made if
/// absent.
pub fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => env::home_dir()
            .context("no home directory for the package cache: set HOME or XDG_CACHE_HOME")?
            .join(".cache"),
    };
    make(base.join("redox-hypervisor"))
}

/// The file called `name` in the first folder of `PATH` that has one.
pub fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|at| at.is_file())
}

fn make(directory: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make the folder {}", directory.display()))?;
    Ok(directory)
}
