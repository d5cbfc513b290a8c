//! `cargo xtask bench hvt`: what the tender costs, beside its peers where they are on PATH;
//! `cargo xtask bench baremetal` is in [`baremetal`].
//!
//! All figures of one run come from the same machine, all contenders in turn, so quote ratios: the
//! machine's own speed drifts. What the figures mean is in `docs/benchmarks.md`.
//!
//! `solo5-hvt` runs the same unikernels. `solo5-spt` needs its own, and a fair comparison the same
//! program for all: both are built with a Solo5 source tree (`--solo5`), see [`guests`].

mod baremetal;
mod calls;
mod flood;
mod guests;
mod kvm;
mod memory;
mod start;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{paths, tender, unikernel};
use guests::Guests;

/// What can be measured.
#[derive(Subcommand)]
pub enum Options {
    /// HVT: start-up, memory, hypercalls, ping flood, unikernels per second
    Hvt(Hvt),
    /// The bare-metal image and Type 1 mode: instructions, counted in an emulated machine
    Baremetal(baremetal::Options),
}

/// How to measure HVT.
#[derive(Args)]
pub struct Hvt {
    /// Runs of each command that is timed from start to end
    #[arg(long, default_value_t = 300)]
    runs: usize,
    /// Hypercalls of each kind in one run
    #[arg(long, default_value_t = 100_000)]
    calls: u64,
    /// Pings of one flood (needs root, ip and ping); 0 leaves it out
    #[arg(long, default_value_t = 50_000)]
    pings: u64,
    /// Runs of the hypercall figures and of the flood, of which the medians are taken
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// A Solo5 source tree, built: its compiler makes the guests for all contenders
    #[arg(long, value_name = "DIR")]
    solo5: Option<PathBuf>,
    /// Only count instructions on KVM, in the emulated machine (docs/testing.md)
    #[arg(long)]
    kvm: bool,
}

/// A tender that is measured.
pub struct Contender {
    /// What it is called in the tables.
    pub name: String,
    program: PathBuf,
    options: Vec<String>,
    /// The ABI of its guests: `hvt` or `spt`.
    abi: &'static str,
}

impl Contender {
    /// A command that runs a guest, or `None` where there is none for this contender.
    fn command(
        &self,
        guests: &Guests,
        guest: &str,
        options: &[&str],
        arguments: &[&str],
    ) -> Option<Command> {
        let kernel = guests.get(guest, self.abi)?;
        let mut command = Command::new(&self.program);
        command.args(&self.options).args(options).arg("--").arg(kernel).args(arguments);
        Some(command)
    }

    fn hello(&self, guests: &Guests) -> Command {
        self.command(guests, "hello", &["--mem=512"], &[]).unwrap_or_else(|| Command::new("false"))
    }

    fn works(&self, guests: &Guests) -> bool {
        self.hello(guests).output().is_ok_and(|output| output.status.success())
    }
}

/// Measures.
///
/// # Errors
/// If something cannot be built or started.
pub fn run(options: &Options) -> Result<()> {
    let options = match options {
        Options::Hvt(options) => options,
        Options::Baremetal(options) => return baremetal::measure(options),
    };
    let program = tender::build()?;
    unikernel::build_examples()?;
    let guests = Guests::new(options.solo5.as_deref())?;
    if options.kvm {
        return kvm::measure(&guests);
    }
    let contenders = contenders(program, &guests);
    start::measure(&contenders, &guests, options.runs)?;
    memory::measure(&contenders, &guests)?;
    calls::measure(&contenders, &guests, options.calls, options.rounds)?;
    flood::measure(&contenders, &guests, options.pings, options.rounds)
}

/// Whether the tender itself, asked to choose, takes KVM.
fn has_kvm(program: &Path, guests: &Guests) -> bool {
    let Some(hello) = guests.get("hello", "hvt") else { return false };
    let output = Command::new(program).args(["-v", "--"]).arg(hello).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("backend: kvm"))
}

/// Everybody who runs a unikernel here. The peers come first: ratios are to the first of all.
fn contenders(program: PathBuf, guests: &Guests) -> Vec<Contender> {
    let kvm = has_kvm(&program, guests);
    let peer = |name: &str, abi| {
        let program = paths::on_path(name)?;
        Some(Contender { name: name.to_owned(), program, options: Vec::new(), abi })
    };
    let ours = |backend: &str| Contender {
        name: format!("redox-hvt {backend}"),
        program: program.clone(),
        options: vec![format!("--backend={backend}")],
        abi: "hvt",
    };
    let mut all: Vec<_> = peer("solo5-spt", "spt").into_iter().collect();
    all.push(ours("sandbox"));
    if kvm {
        all.extend(peer("solo5-hvt", "hvt"));
        all.push(ours("kvm"));
    } else {
        println!("KVM does not run guests at hardware speed here: left out; see --kvm");
    }
    all.retain(|contender| {
        let works = contender.works(guests);
        if !works {
            println!("{}: does not run a unikernel here, left out", contender.name);
        }
        works
    });
    all
}

/// The middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
