//! `cargo xtask test`: every check there is, one after the other, and one line that sums them up.
//!
//! A check that fails does not keep the next from running. Its tests, or it itself where it has
//! none, are what the last line counts.

mod bare_metal;
pub mod image;
mod kvm;
mod lint;
mod log;
pub mod machines;
mod room;
pub mod suites;
mod tally;
mod tree;

use std::time::Instant;

use anyhow::Result;

use crate::{linux, process, setup, tender, unikernel};
use tally::Tally;

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Options {
    /// Leave out what takes minutes: bare-metal builds, fuzzing, sanitizers and the tests inside QEMU
    #[arg(long)]
    quick: bool,
    /// Run only tests whose name contains this, and no other check
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
}

/// Runs the checks; the status is 0 if none failed and at least one test ran.
pub fn run(options: &Options) -> Result<i32> {
    room::check()?;
    let mut checks = Checks::default();
    let whole = options.filter.is_none();
    if whole {
        checks.run("format", lint::format);
        checks.run("clippy", lint::clippy);
        checks.run("documentation", lint::documentation);
        checks.run("links", tree::links);
    }
    if !options.quick {
        checks.run_setup("set-up", setup::everything);
    }
    if whole && !options.quick {
        checks.run("bare metal", bare_metal::build);
    }
    checks.run_setup("build the tender", || tender::build().map(drop));
    if !options.quick {
        checks.run_setup("build redox-vm", || tender::build_manager().map(drop));
    }
    checks.run_setup("build the unikernels", || unikernel::build_examples().map(drop));
    let filter = options.filter.as_deref();
    checks.run("unit tests", || suites::unit(filter));
    checks.run("unikernel tests", || suites::unikernel(filter));
    checks.run("system tests, sandbox", || suites::system(filter));
    if !options.quick {
        checks.run("bare metal in QEMU", || image::boot(filter));
        checks.run("whole machines on bare metal", || machines::boot(filter));
    }
    if whole && !options.quick {
        checks.run("fuzz targets", suites::fuzz);
        checks.run("AddressSanitizer", suites::address_sanitizer);
        checks.run("Miri", suites::miri);
    }
    if !options.quick {
        checks.run_setup("make a Linux guest", linux::build);
        checks.run("redox-vm with QEMU", || suites::on_image(filter));
        checks.run("system tests, KVM in QEMU", || kvm::system(filter));
    }
    Ok(checks.finish())
}

#[derive(Default)]
struct Checks {
    sum: Tally,
    lines: Vec<String>,
}

impl Checks {
    fn run(&mut self, name: &str, check: impl FnOnce() -> Result<Tally>) {
        process::say(&format!("check: {name}"));
        let start = Instant::now();
        let tally = check().unwrap_or_else(|error| {
            eprintln!("{name} failed: {error:#}");
            Tally::failure()
        });
        self.lines.push(format!("{:5} s  {name}: {tally}", start.elapsed().as_secs()));
        self.lines.extend(tally.names.iter().map(|test| format!("         failed: {test}")));
        self.lines.extend(tally.reasons.iter().map(|why| format!("         skipped: {why}")));
        self.sum.add(tally);
    }

    /// What only prepares counts if it fails, and not if it succeeds.
    fn run_setup(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        self.run(name, || work().map(|()| Tally::default()));
    }

    fn finish(self) -> i32 {
        process::say("summary");
        for line in &self.lines {
            eprintln!("{line}");
        }
        if self.sum.tests == 0 {
            eprintln!("no test ran");
        }
        println!("{}", self.sum);
        self.sum.status()
    }
}
