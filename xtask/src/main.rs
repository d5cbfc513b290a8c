//! One entry for everything a person types: `cargo xtask`, which alone lists what there is.

mod paths;
mod process;
mod qemu;
mod setup;
mod tender;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
#[command(about = "Builds, runs, tests and measures the hypervisor")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetch what the tests need, into a cache outside the tree; installs nothing, needs no root
    Setup,
    /// Run a shell command in an emulated PC that has SVM and Linux with KVM
    ///
    /// The machine holds busybox, the built tender (/opt/bin/redox-hvt) and the built unikernels
    /// (/unikernels). It powers off when the command has ended; the status is the command's.
    #[command(
        after_help = "Example: cargo xtask vm -- redox-hvt --backend=kvm /unikernels/hello.hvt"
    )]
    Vm(vm::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<i32> {
    match task {
        Task::Setup => setup::everything().map(|()| 0),
        Task::Vm(options) => vm::run(&options),
    }
}
