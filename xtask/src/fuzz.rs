//! `cargo xtask fuzz`: the fuzz targets (`fuzz/`) for a bounded time, and the short run of each
//! that `cargo xtask test` makes.
//!
//! They are built as `fuzz/README.md` says, by the stable compiler: the instrumentation is stable
//! flags, libFuzzer comes with the crate `libfuzzer-sys` and takes a C++ compiler. What a run
//! finds interesting is kept under `target/xtask/fuzz` and is where the next one starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::tender::HOST_TARGET;
use crate::{paths, process};

/// Runs of each target in `cargo xtask test`: a few seconds, and the same ones each time.
const SMOKE_RUNS: u32 = 100_000;
/// Targets whose runs take longer: how many there are of them, and what lets these reach far.
const SLOW: [(&str, u32, [&str; 2]); 1] = [("machine", 3_000, ["-len_control=0", "-max_len=1000"])];

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Options {
    /// The target; all, one after the other, without it
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Run the target once on this file, which an earlier run has left
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
    /// With AddressSanitizer, where the compiler brings its library; needs no nightly
    #[arg(long)]
    address_sanitizer: bool,
}

/// Runs them; 1 if one has found something.
pub fn run(options: &Options) -> Result<i32> {
    let known = targets()?;
    let chosen = match &options.target {
        None => known,
        Some(name) if known.contains(name) => vec![name.clone()],
        Some(name) => bail!("no fuzz target `{name}`: there are {}", known.join(", ")),
    };
    let fuzzers = Fuzzers::build(options.address_sanitizer)?;
    let mut findings = 0;
    for target in &chosen {
        let good = match &options.input {
            Some(file) => fuzzers.once(target, file)?,
            None => fuzzers.explore(target, options.seconds)?,
        };
        findings += i32::from(!good);
    }
    Ok(i32::from(findings > 0))
}

/// The names of all targets, sorted.
pub fn targets() -> Result<Vec<String>> {
    let sources = folder().join("fuzz_targets");
    let entries = fs::read_dir(&sources)
        .with_context(|| format!("{} cannot be read", sources.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()));
    let rust = entries.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let mut names: Vec<_> =
        rust.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// The built targets.
pub struct Fuzzers {
    programs: PathBuf,
    address_sanitizer: bool,
}

impl Fuzzers {
    /// Builds all of them.
    ///
    /// # Errors
    /// If there is no C++ compiler, or with AddressSanitizer no library of it.
    pub fn build(address_sanitizer: bool) -> Result<Self> {
        cxx()?;
        let name = if address_sanitizer { "fuzz-address" } else { "fuzz-build" };
        let target = paths::target().join(name);
        let mut command = process::cargo();
        // Cargo reads .cargo/config.toml, which has the instrumentation, from where it runs.
        command.current_dir(folder()).env("CARGO_TARGET_DIR", &target).env_remove("RUSTFLAGS");
        command.args(["build", "--quiet", "--release", "--bins", "--target", HOST_TARGET]);
        if address_sanitizer {
            sanitizer_library()?;
            command.args(["--config", "build.rustflags=['-Zsanitizer=address']"]);
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        process::run(&mut command)?;
        Ok(Self { programs: target.join(HOST_TARGET).join("release"), address_sanitizer })
    }

    /// Runs one for so long, from what earlier runs have found on; false if it found something.
    fn explore(&self, target: &str, seconds: u32) -> Result<bool> {
        process::say(&format!("fuzzing {target} for {seconds} s"));
        let corpus = make(&work()?.join("corpus").join(target))?;
        let mut command = self.command(target);
        command.arg(corpus).args(seeds(target)).arg(format!("-max_total_time={seconds}"));
        self.judge(target, &mut command)
    }

    /// Runs one as often as `cargo xtask test` does, always from the same inputs on.
    pub fn smoke(&self, target: &str) -> Result<bool> {
        let corpus = work()?.join("smoke").join(target);
        let _ = fs::remove_dir_all(&corpus);
        let mut command = self.command(target);
        command.arg(make(&corpus)?).args(seeds(target));
        let slow = SLOW.iter().find(|(name, ..)| *name == target);
        let runs = slow.map_or(SMOKE_RUNS, |(_, runs, _)| *runs);
        command.arg(format!("-runs={runs}")).args(["-seed=1", "-verbosity=0"]);
        self.judge(target, &mut command)
    }

    fn once(&self, target: &str, file: &Path) -> Result<bool> {
        ensure!(file.is_file(), "{}: no such file", file.display());
        self.judge(target, self.command(target).arg(file))
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(self.programs.join(target));
        if let Some((.., options)) = SLOW.iter().find(|(name, ..)| *name == target) {
            command.args(options);
        }
        command
    }

    /// Runs it and tells how to see a finding again.
    fn judge(&self, target: &str, command: &mut Command) -> Result<bool> {
        let findings = make(&work()?.join("findings"))?;
        command.current_dir(paths::root()).stdin(Stdio::null());
        command.arg(format!("-artifact_prefix={}/{target}-", findings.display()));
        let status =
            command.status().with_context(|| format!("cannot start the fuzz target {target}"))?;
        if status.success() {
            return Ok(true);
        }
        let option = if self.address_sanitizer { " --address-sanitizer" } else { "" };
        eprintln!(
            "the fuzz target {target} found something ({status}); to see it again, with the file \
             named above (in {}): cargo xtask fuzz {target}{option} --input FILE",
            findings.display()
        );
        Ok(false)
    }
}

/// The compiler's library of AddressSanitizer.
///
/// # Errors
/// Where the compiler brings none.
pub fn sanitizer_library() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", HOST_TARGET]);
    let folder = process::capture(&mut rustc)?;
    let entries = fs::read_dir(folder.trim())?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = entries.filter(|path| path.to_string_lossy().ends_with("_rt.asan.a"));
    found.next().context("this compiler brings no AddressSanitizer library")
}

/// Whether there is the C++ compiler that libFuzzer takes.
pub fn cxx() -> Result<()> {
    let mut probe = Command::new("c++");
    probe.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let there = probe.status().is_ok_and(|status| status.success());
    ensure!(there, "fuzzing takes a C++ compiler, `c++` on PATH (Debian: g++)");
    Ok(())
}

fn folder() -> PathBuf {
    paths::root().join("fuzz")
}

fn seeds(target: &str) -> Option<PathBuf> {
    Some(folder().join("seeds").join(target)).filter(|seeds| seeds.is_dir())
}

fn work() -> Result<PathBuf> {
    paths::work("fuzz")
}

fn make(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_of_the_folder_is_a_program_of_the_package() {
        let manifest = fs::read_to_string(folder().join("Cargo.toml")).unwrap();
        let targets = targets().unwrap();
        assert!(targets.contains(&"elf".to_owned()), "{targets:?}");
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target}");
        }
    }

    #[test]
    fn an_unknown_target_is_told_with_the_known_ones() {
        let target = Some("nonesuch".to_owned());
        let options = Options { target, seconds: 1, input: None, address_sanitizer: false };
        let error = run(&options).unwrap_err().to_string();
        assert!(error.contains("no fuzz target `nonesuch`: there are ") && error.contains("ring"));
    }
}
