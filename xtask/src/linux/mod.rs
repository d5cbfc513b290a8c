//! The guest of `examples/linux.toml`: Debian's kernel, and an initial RAM disk of busybox.

pub mod disc;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::paths;
use crate::qemu::initramfs::Files;
use crate::setup::{kernel, programs};

/// Modules for its disks and networks; what the kernel has built in is left out.
const MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "virtio_net"];
/// Modules for a file system on a disk, loaded where the command line has a `root=`.
const ROOT_MODULES: [&str; 2] = ["crc32c_generic", "ext4"];

/// Names of the kernel and the initial RAM disk.
pub const FILES: [&str; 2] = ["vmlinuz", "initramfs.cpio"];

/// Where `examples/linux.toml` finds them.
pub fn folder() -> PathBuf {
    paths::root().join("target/linux")
}

/// The description.
pub fn description() -> PathBuf {
    paths::root().join("examples/linux.toml")
}

/// Puts kernel and initial RAM disk where the description expects them.
pub fn build() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kernel = kernel::get()
        .context("the example needs Debian's kernel (for one of your own: docs/redox-vm.md)")?;
    fs::copy(&kernel.image, folder.join(FILES[0]))
        .with_context(|| format!("cannot copy {}", kernel.image.display()))?;
    let mut files = Files::default();
    files.add_file("/bin/busybox", &programs::busybox()?)?;
    files.add_link("/bin/sh", "busybox");
    let load = add_modules(&mut files, kernel.modules(&MODULES)?);
    let load_root = add_modules(&mut files, kernel.modules(&ROOT_MODULES)?);
    files.add_bytes("/bin/load", 0o755, include_str!("load.sh").into());
    files.add_bytes("/init", 0o755, init(&load, &load_root).into());
    fs::write(folder.join(FILES[1]), files.archive()?)?;
    Ok(())
}

/// The first process, which loads modules by these commands.
fn init(load: &str, load_root: &str) -> String {
    let script = include_str!("init.sh").replace("@LOAD@", load);
    script.replace("@LOAD_ROOT@", load_root)
}

/// Adds modules, and gives the commands that load them.
fn add_modules(files: &mut Files, modules: Vec<(String, Vec<u8>)>) -> String {
    let mut load = String::new();
    for (name, contents) in modules {
        let path = format!("/lib/modules/{name}");
        load.push_str(&format!("insmod {path}\n"));
        files.add_bytes(&path, 0o644, contents);
    }
    load
}

/// Whether this machine's processor can virtualize.
pub fn has_hardware() -> bool {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.split_whitespace().any(|word| matches!(word, "vmx" | "svm"))
}

/// `PATH` with QEMU first, which may be a fetched one that wants options and libraries of its own.
pub fn path_with_qemu() -> Result<OsString> {
    let folder = paths::work("qemu")?;
    let script = folder.join("qemu-system-x86_64");
    fs::write(&script, wrapper(&programs::qemu()?.command()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let old = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder).chain(env::split_paths(&old));
    env::join_paths(folders).context("PATH cannot hold the folder of QEMU")
}

/// A script that starts a command with more arguments.
fn wrapper(command: &Command) -> String {
    let quote = |text: &std::ffi::OsStr| {
        let text = text.to_string_lossy();
        format!("'{}'", text.replace('\'', "'\\''"))
    };
    let mut script = "#!/bin/sh\n".to_owned();
    for (name, value) in command.get_envs() {
        let value = value.map(quote).unwrap_or_default();
        script.push_str(&format!("export {}={value}\n", name.to_string_lossy()));
    }
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect();
    script.push_str(&format!("exec {} \"$@\"\n", words.join(" ")));
    script
}

#[cfg(test)]
mod tests {
    use super::{init, wrapper};
    use std::process::Command;

    #[test]
    fn the_first_process_loads_what_a_root_needs_only_where_there_is_one() {
        let script = init("insmod disk\n", "insmod ext4\n");
        let place = |text: &str| script.find(text).unwrap();
        assert!(place("insmod disk") < place("if [ \"$root\" ]"));
        assert!(place("if [ \"$root\" ]") < place("insmod ext4"));
        assert!(place("insmod ext4") < place("mount -t ext4"));
        assert!(!script.contains('@'), "{script}");
    }

    #[test]
    fn a_wrapper_keeps_words_and_variables() {
        let mut command = Command::new("/a b/qemu");
        command.args(["-L", "it's"]).env("X", "1 2");
        let expected = "#!/bin/sh\nexport X='1 2'\nexec '/a b/qemu' '-L' 'it'\\''s' \"$@\"\n";
        assert_eq!(wrapper(&command), expected);
    }
}
