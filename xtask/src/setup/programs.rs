//! Programs the tests drive: QEMU, busybox, gdb, passt, ip, ping. One on `PATH` is taken; else
//! Debian's package is unpacked into the cache.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt::{self, Apt};
use crate::{paths, process};

/// The oldest QEMU whose TCG plugin interface and nested SVM the harness was written for.
const QEMU_MAJOR: u32 = 10;
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// A QEMU system emulator.
pub struct Qemu {
    /// Its executable.
    pub program: PathBuf,
    /// The folder it was unpacked into; none where the machine's own is used.
    unpacked: Option<PathBuf>,
}

impl Qemu {
    /// A command that starts it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(folder) = &self.unpacked {
            let libraries = LIBRARIES.map(|part| folder.join(part).display().to_string());
            command.env("LD_LIBRARY_PATH", libraries.join(":"));
            command.arg("-L").arg(folder.join("usr/share/qemu"));
            command.arg("-L").arg(folder.join("usr/share/seabios"));
        }
        command
    }

    fn major(&self) -> Option<u32> {
        let text = process::capture(self.command().arg("--version")).ok()?;
        text.split("version ").nth(1)?.split('.').next()?.parse().ok()
    }
}

/// The x86 system emulator.
pub fn qemu() -> Result<Qemu> {
    const NAME: &str = "qemu-system-x86_64";
    if let Some(program) = paths::on_path(NAME) {
        let own = Qemu { program, unpacked: None };
        if own.major().is_some_and(|major| major >= QEMU_MAJOR) {
            return Ok(own);
        }
    }
    let folder = packages()?.join("qemu-system-x86");
    let fetched = Qemu { program: folder.join("usr/bin").join(NAME), unpacked: Some(folder) };
    if fetched.major().is_none() {
        let folder = fetched.unpacked.as_deref().unwrap_or(Path::new(""));
        debian()?.unpack("qemu-system-x86", true, folder)?;
    }
    match fetched.major() {
        Some(major) if major >= QEMU_MAJOR => Ok(fetched),
        Some(major) => bail!("Debian's QEMU is version {major}; the tests need {QEMU_MAJOR}"),
        None => bail!("the fetched QEMU does not start: remove {}", paths::cache()?.display()),
    }
}

/// Debian's gdb without Python, whose own libraries it would need: small enough for the test
/// machine. Unpacked with the libraries that this machine lacks.
pub struct Gdb {
    /// Its executable.
    pub program: PathBuf,
    /// Where the fetched ones of its libraries are.
    pub libraries: Vec<PathBuf>,
}

/// gdb for the test machine.
pub fn small_gdb() -> Result<Gdb> {
    const PACKAGE: &str = "gdb-minimal";
    let folder = packages()?.join(PACKAGE);
    let program = folder.join("usr/bin/gdb");
    if !program.exists() {
        debian()?.unpack(PACKAGE, true, &folder)?;
    }
    let libraries = LIBRARIES.map(|part| folder.join(part)).into();
    Ok(Gdb { program, libraries })
}

/// gdb for this machine: its own, or a script that starts the small one.
pub fn gdb() -> Result<PathBuf> {
    if let Some(path) = paths::on_path("gdb") {
        return Ok(path);
    }
    let Gdb { program, libraries } = small_gdb()?;
    let folder = packages()?.join("gdb-script");
    std::fs::create_dir_all(&folder)?;
    let script = folder.join("gdb");
    let libraries: Vec<_> = libraries.iter().map(|path| path.display().to_string()).collect();
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
        libraries.join(":"),
        program.display()
    );
    // Not in place: another test run may just start it.
    let new = folder.join(format!("new-{}", std::process::id()));
    std::fs::write(&new, text)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&new, &script)?;
    Ok(script)
}

/// busybox as one static file.
pub fn busybox() -> Result<PathBuf> {
    let folder = packages()?.join("busybox-static");
    // Debian moved it from /bin to /usr/bin.
    let found = || {
        ["bin/busybox", "usr/bin/busybox"].map(|p| folder.join(p)).into_iter().find(|p| p.exists())
    };
    if found().is_none() {
        debian()?.unpack("busybox-static", false, &folder)?;
    }
    found().context("Debian's busybox-static holds no busybox")
}

/// A program that the tests start by name.
#[derive(Clone, Copy)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    package: &'static str,
    places: [&'static str; 2],
}

/// User-mode networking.
pub const PASST: Program =
    Program { name: "passt", package: "passt", places: ["usr/bin/passt", "bin/passt"] };
/// Network devices and namespaces.
pub const IP: Program =
    Program { name: "ip", package: "iproute2", places: ["bin/ip", "usr/bin/ip"] };
/// ICMP echo.
pub const PING: Program =
    Program { name: "ping", package: "iputils-ping", places: ["bin/ping", "usr/bin/ping"] };

impl Program {
    /// Where it is, fetched if it is not on `PATH`.
    pub fn get(self) -> Result<PathBuf> {
        if let Some(path) = paths::on_path(self.name) {
            return Ok(path);
        }
        let folder = packages()?.join(self.package);
        let found = || self.places.map(|place| folder.join(place)).into_iter().find(|p| p.exists());
        if found().is_none() {
            debian()?.unpack(self.package, false, &folder)?;
        }
        found().with_context(|| format!("Debian's {} holds no {}", self.package, self.name))
    }
}

/// The folder that packages are unpacked in, one folder each.
pub fn packages() -> Result<PathBuf> {
    let folder = paths::cache()?.join("packages");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// apt over this Debian; on bookworm with its backports, where QEMU 10 and Linux 6.12 are.
pub fn debian() -> Result<Apt> {
    let codename = apt::codename()?;
    let mut suites = vec![codename.clone()];
    if codename == "bookworm" {
        suites.push("bookworm-backports".to_owned());
    }
    Apt::over(&suites)
}
