//! Debian packages, fetched and unpacked into a folder: nothing is installed, no root is needed
//! and the machine's own apt configuration is not changed.
//!
//! apt works here on a sources list, package lists and an archive folder of its own. The mirror's
//! address is what the machine's own sources say (`apt-get indextargets` reads both forms of
//! them). See apt-get(8), sources.list(5), deb822(5).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{paths, process};

/// Far less than a mirror keeps a package that its lists no longer name.
const LISTS_STAY_GOOD: Duration = Duration::from_secs(3600);

/// apt over a few suites of Debian.
pub struct Apt {
    folder: PathBuf,
    default_suite: String,
    /// Held so that two runs do not unpack into one folder at once.
    _lock: File,
}

impl Apt {
    /// apt over `suites`; dependencies come from the last one first.
    ///
    /// # Errors
    /// This is no Debian, or its sources name no Debian mirror.
    pub fn over(suites: &[String]) -> Result<Self> {
        let default_suite = suites.last().context("no suite named")?.clone();
        let cache = paths::cache()?;
        let lock = File::create(cache.join("lock"))?;
        lock.lock().context("cannot lock the package cache")?;
        let folder = cache.join("apt").join(suites.join("+"));
        for part in ["lists/partial", "archives/partial", "cache"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let mirror = mirror()?;
        let keys = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
        let options = match keys.exists() {
            true => format!("[signed-by={}] ", keys.display()),
            false => String::new(),
        };
        let lines: String =
            suites.iter().map(|suite| format!("deb {options}{mirror} {suite} main\n")).collect();
        fs::write(folder.join("sources.list"), lines)?;
        Ok(Self { folder, default_suite, _lock: lock })
    }

    /// Fetches `package` (`name` or `name=version`), with the dependencies that this machine
    /// lacks if `dependencies`, and unpacks it all into `into`, which appears whole or not at all.
    pub fn unpack(&self, package: &str, dependencies: bool, into: &Path) -> Result<()> {
        self.update()?;
        process::say(&format!("fetching Debian's {package}"));
        let archives = self.folder.join("archives");
        let partial = into.with_extension("partial");
        for stale in [&archives, &partial] {
            let _ = fs::remove_dir_all(stale);
        }
        fs::create_dir_all(archives.join("partial"))?;
        fs::create_dir_all(&partial)?;
        let mut command = self.tool("apt-get");
        if dependencies {
            command.args(["--yes", "--no-install-recommends", "--download-only"]);
            command.args(["--target-release", &self.default_suite, "install", package]);
        } else {
            command.args(["download", package]);
        }
        process::capture(command.current_dir(&archives))
            .with_context(|| format!("the mirror gave no package {package}"))?;
        for archive in archives_in(&archives)? {
            process::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&partial))?;
        }
        let _ = fs::remove_dir_all(&archives);
        let _ = fs::remove_dir_all(into);
        fs::rename(&partial, into).with_context(|| format!("cannot make {}", into.display()))
    }

    /// The names of all packages that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        self.update()?;
        let text = process::capture(self.tool("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The versions of `package`, as the suites have them.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        self.update()?;
        let text = process::capture(self.tool("apt-cache").args(["madison", package]))?;
        Ok(text
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(|v| v.trim().to_owned())
            .collect())
    }

    /// Reads the suites' package lists, unless that was done in the last hour.
    fn update(&self) -> Result<()> {
        let stamp = self.folder.join("updated");
        let age = fs::metadata(&stamp).and_then(|data| data.modified()).map(|at| at.elapsed());
        if matches!(age, Ok(Ok(age)) if age < LISTS_STAY_GOOD) {
            return Ok(());
        }
        process::say(&format!("reading Debian's package lists ({})", self.default_suite));
        process::capture(self.tool("apt-get").args([
            "-o",
            "APT::Update::Error-Mode=any",
            "update",
        ]))
        .context("cannot read Debian's package lists: is the mirror reachable?")?;
        fs::write(&stamp, "").context("cannot write to the package cache")
    }

    fn tool(&self, name: &str) -> Command {
        let at = |part: &str| self.folder.join(part).display().to_string();
        let mut command = Command::new(name);
        for option in [
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=-".to_owned(),
            "Dir::Etc::preferencesparts=-".to_owned(),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Cache::archives={}", at("archives")),
            // The cache may lie in a home folder, which apt's own user cannot enter.
            "APT::Sandbox::User=root".to_owned(),
            // Nothing of the machine's state is written, so its lock is not needed.
            "Debug::NoLocking=1".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// This Debian's code name ("bookworm").
pub fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    ensure!(
        value("ID").as_deref() == Some("debian") && paths::on_path("apt-get").is_some(),
        "fetching packages works on Debian only; elsewhere put the programs on PATH yourself"
    );
    value("VERSION_CODENAME").context("/etc/os-release names no VERSION_CODENAME")
}

/// The base address of the mirror this machine's own apt sources name for its own suite.
fn mirror() -> Result<String> {
    let codename = codename()?;
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--no-release-info", "--format", "$(RELEASE) $(REPO_URI)"]);
    let targets = process::capture(command.arg("Created-By: Packages"))?;
    mirror_among(&targets, &codename).with_context(|| {
        format!(
            "this machine's apt sources name no Debian mirror for {codename}: \
             add one to /etc/apt/sources.list.d"
        )
    })
}

/// Of lines `RELEASE ADDRESS`, the address of `codename`'s main archive; sources may call it by
/// its role instead ("stable").
fn mirror_among(targets: &str, codename: &str) -> Option<String> {
    let roles = [codename, "stable", "oldstable", "testing", "unstable", "sid"];
    let pairs: Vec<_> = targets.lines().filter_map(|line| line.split_once(' ')).collect();
    roles.iter().find_map(|role| {
        let (_, address) = pairs.iter().find(|(release, _)| release == role)?;
        Some(address.trim_end_matches('/').to_owned())
    })
}

fn archives_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("apt fetched nothing into {}", folder.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::mirror_among;

    #[test]
    fn the_machines_own_suite_names_the_mirror() {
        let targets = "bookworm-security http://a.test/sec/\nbookworm http://b.test/debian/\n";
        assert_eq!(mirror_among(targets, "bookworm").as_deref(), Some("http://b.test/debian"));
        assert_eq!(mirror_among("stable http://c.test/d/\n", "trixie").unwrap(), "http://c.test/d");
        assert_eq!(mirror_among("nodistro http://d.test/\n", "bookworm"), None);
    }
}
