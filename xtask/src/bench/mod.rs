//! `cargo xtask bench hvt`: what the tender costs, beside its peers where they are on PATH.
//!
//! All figures of one run come from the same machine in turn, so quote ratios: the machine's own
//! speed drifts. `solo5-hvt` runs the same unikernels; `solo5-spt` needs its own, which are taken
//! from `--spt-guests` (Solo5's `tests` directory, built).

mod calls;
mod flood;
mod memory;
mod start;

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{paths, tender, unikernel};

/// What can be measured.
#[derive(Subcommand)]
pub enum Options {
    /// HVT: start-up, memory, hypercalls, ping flood, unikernels per second
    Hvt(Hvt),
}

/// How to measure HVT.
#[derive(Args)]
pub struct Hvt {
    /// Runs of each command that is timed from start to end
    #[arg(long, default_value_t = 200)]
    runs: usize,
    /// Hypercalls of each kind
    #[arg(long, default_value_t = 200_000)]
    calls: u64,
    /// Pings of the flood (needs root, ip and ping); 0 leaves it out
    #[arg(long, default_value_t = 50_000)]
    pings: u64,
    /// Solo5's built `tests` directory, to run solo5-spt's unikernels
    #[arg(long)]
    spt_guests: Option<PathBuf>,
}

/// A tender that is measured.
pub struct Contender {
    /// What it is called in the tables.
    pub name: String,
    program: PathBuf,
    options: Vec<String>,
    guests: Guests,
}

/// Which unikernels a contender runs.
enum Guests {
    /// Ours.
    Ours,
    /// Solo5's own, for solo5-spt.
    Spt(PathBuf),
}

impl Contender {
    /// A command that runs one of our unikernels, or `None` where it cannot run those.
    fn ours(&self, guest: &str, options: &[&str], arguments: &[&str]) -> Option<Command> {
        matches!(self.guests, Guests::Ours).then(|| {
            let kernel = paths::unikernels().join(format!("{guest}.hvt"));
            let mut command = Command::new(&self.program);
            command.args(&self.options).args(options).arg("--").arg(kernel).args(arguments);
            command
        })
    }

    /// A command that says hello: the one job that all contenders can do.
    fn hello(&self) -> Command {
        match &self.guests {
            Guests::Ours => self.ours("hello", &[], &[]).unwrap_or_else(|| Command::new("false")),
            Guests::Spt(tests) => {
                let mut command = Command::new(&self.program);
                command.arg("--mem=512").arg(tests.join("test_hello/test_hello.spt"));
                command
            }
        }
    }

    fn works(&self) -> bool {
        self.hello().output().is_ok_and(|output| output.status.success())
    }
}

/// Measures.
///
/// # Errors
/// If something cannot be built or started.
pub fn run(options: &Options) -> Result<()> {
    let Options::Hvt(options) = options;
    let program = tender::build()?;
    unikernel::build_examples()?;
    let contenders = contenders(program, options);
    start::measure(&contenders, options.runs)?;
    memory::measure(&contenders)?;
    calls::measure(&contenders, options.calls)?;
    flood::measure(&contenders, options.pings)
}

fn contenders(program: PathBuf, options: &Hvt) -> Vec<Contender> {
    let ours = |backend: &str| Contender {
        name: format!("redox-hvt {backend}"),
        program: program.clone(),
        options: vec![format!("--backend={backend}")],
        guests: Guests::Ours,
    };
    let mut all = vec![ours("sandbox"), ours("kvm")];
    all.extend(paths::on_path("solo5-hvt").map(|program| Contender {
        name: "solo5-hvt".into(),
        program,
        options: Vec::new(),
        guests: Guests::Ours,
    }));
    if let (Some(program), Some(tests)) = (paths::on_path("solo5-spt"), &options.spt_guests) {
        let guests = Guests::Spt(tests.clone());
        all.push(Contender { name: "solo5-spt".into(), program, options: Vec::new(), guests });
    }
    all.retain(|contender| {
        let works = contender.works();
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
