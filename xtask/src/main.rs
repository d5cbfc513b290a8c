//! One entry for everything a person types: `cargo xtask`, which alone lists what there is.

mod bench;
mod cc;
mod check;
mod fuzz;
mod image;
mod linux;
mod paths;
mod process;
mod qemu;
mod run;
mod setup;
mod tender;
mod test_kernel;
mod unikernel;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
#[command(about = "Builds, runs, tests and measures the hypervisor")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Build and run an example unikernel, which needs nothing but the compiler; `linux`; any VM
    ///
    /// No root, no KVM, nothing installed. A unikernel takes no download but crates; `linux` takes
    /// Debian packages, into a cache outside of the tree.
    #[command(after_help = RUN_EXAMPLES)]
    Run(run::Options),
    /// Check everything: form, lints, bare-metal builds, all tests; fetches what they need
    ///
    /// Ends with a line `N passed, N failed, N skipped`; the status is 0 only if nothing failed
    /// and at least one test ran.
    Test(check::Options),
    /// Run the fuzz targets for some time, with the stable compiler
    ///
    /// What they have found interesting is where the next run starts.
    #[command(after_help = "Example: cargo xtask fuzz ring --seconds 600")]
    Fuzz(fuzz::Options),
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
    /// Build the bare-metal image; boot it in QEMU with --run
    #[command(after_help = IMAGE_EXAMPLES)]
    Image(image::Options),
    /// Make a disc that boots the bare-metal image, by a BIOS and by UEFI
    #[command(
        after_help = "Example: cargo xtask iso -o disc.iso --bundle web.toml --bundle web.hvt"
    )]
    Iso(image::iso::Options),
    /// Put descriptions of VMs, and what they name, into a boot module for the bare-metal image
    ///
    /// SeaBIOS is added where a description boots a disk and names no firmware. A boot module is
    /// smaller than 4 GiB.
    #[command(after_help = "Example: cargo xtask bundle -o vms.cpio web.toml web.hvt disk.img")]
    Bundle(image::bundle::Options),
    /// Build the guest kernel of the Type 1 tests, which misbehaves on request; prints where it is
    TestKernel,
    /// Measure, beside the peers that are on PATH
    #[command(subcommand, after_help = "Example: cargo xtask bench hvt --runs=50 --pings=0")]
    Bench(bench::Options),
    /// Build a unikernel of your own, or make a new one
    #[command(
        subcommand,
        after_help = "Examples:\n  cargo xtask unikernel new my-app\n  cargo xtask unikernel build my-app"
    )]
    Unikernel(unikernel::Options),
}

const RUN_EXAMPLES: &str = "Examples:
  cargo xtask run hello -- a command line
  cargo xtask run hello --mem=16 -v
  cargo xtask run block --block:storage=disk.img
  cargo xtask run linux    (fetches a kernel and busybox, and QEMU where it is needed)
  cargo xtask run linux -v --backend=qemu
  cargo xtask run vm.toml  (a description: docs/config.md)";

const IMAGE_EXAMPLES: &str = "Examples:
  cargo xtask image --run -- selftest
  cargo xtask image --run --bundle hello.toml --bundle hello.hvt -- exit";

fn main() -> ExitCode {
    tell_of_lost_output();
    let result = match Arguments::parse().command {
        Some(task) => start(task),
        None => list(),
    };
    match result {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Output that nobody takes (a full disk, `| head -1`) ends the program with one line, where
/// `println!` would panic.
fn tell_of_lost_output() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match panic.payload_as_str() {
        Some(text) if text.starts_with("failed printing to stdout") => {
            eprintln!("xtask: {text}");
            std::process::exit(1);
        }
        _ => usual(panic),
    }));
}

fn list() -> Result<i32> {
    Arguments::command().print_help()?;
    Ok(0)
}

fn start(task: Task) -> Result<i32> {
    match task {
        Task::Run(options) => run::run(&options),
        Task::Test(options) => check::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Setup => setup::everything().map(|()| 0),
        Task::Vm(options) => vm::run(&options),
        Task::Bundle(options) => image::bundle::run(&options).map(|()| 0),
        Task::Iso(options) => image::iso::run(&options).map(|()| 0),
        Task::Image(options) => image::run(&options),
        Task::TestKernel => {
            println!("{}", test_kernel::build()?.display());
            Ok(0)
        }
        Task::Bench(options) => bench::run(&options).map(|()| 0),
        Task::Unikernel(options) => unikernel::run(&options).map(|()| 0),
    }
}
