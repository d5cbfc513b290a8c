//! `redox-vm`: runs VMs of every mode on Linux, by their descriptions (docs/config.md).
//!
//! Read a description ([`description`]), then do with it what the command says: [`run`] it,
//! [`check`] it, or put it into a [`bundle`] for a machine that our bare-metal image boots.

mod bundle;
mod check;
mod description;
mod files;
mod hvt;
mod obstacles;
mod qemu;
mod run;
mod signals;
mod stats;
mod tender;
mod type1;

/// Before Rust's runtime, which ignores SIGPIPE.
#[used]
#[allow(unsafe_code)]
// SAFETY: a function of the form that this section is for; it makes one system call.
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = inherited::note;

use clap::{Parser, Subcommand, ValueEnum};
use host_program::inherited;
use redox_hvt::{FAILURE, tell};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "redox-vm", version, about = "Runs VMs of every mode on Linux", long_about = ABOUT)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const ABOUT: &str = "Runs VMs of every mode on Linux.

A VM is described by a file in TOML (docs/config.md; docs/redox-vm.md has a first one). Paths in
it are relative to that file's folder. Which mode a VM gets is said by the description or found by its image; `redox-vm check`
says which and why.";

#[derive(Subcommand)]
enum Command {
    /// Run a VM; its console is this terminal
    ///
    /// At a terminal, Ctrl-A x leaves and ends the guest, Ctrl-A Ctrl-A types a Ctrl-A, Ctrl-A h
    /// tells the keys; everything else goes to a whole machine's serial line. Unikernels read
    /// nothing.
    ///
    /// Exit status: a unikernel's own; of a whole machine 0 after its power-off or Ctrl-A x; 1 if
    /// the VM could not be run, failed, or was ended by a signal.
    #[command(after_help = RUN_EXAMPLES)]
    Run(run::Options),
    /// What `redox-hvt --backend=qemu` becomes: its options follow
    #[command(hide = true)]
    Tender {
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        words: Vec<OsString>,
    },
    /// Say which mode a VM gets, why, and whether anything stands in its way
    ///
    /// Nothing is run. The status is 0 if nothing is found that would: the description is good,
    /// files and networks are there, images are what they should be.
    #[command(after_help = "Example: redox-vm check examples/linux.toml")]
    Check {
        /// The VM's description
        config: PathBuf,
    },
    /// Put descriptions and the files they name into one archive: the bare-metal image's boot module
    ///
    /// The archive (cpio, "newc") has NAME.toml for each VM, in which paths lead to the copies
    /// under images/. Disks and network interfaces are those of the machine that boots it, so
    /// their names stay as they are, and the files are not taken along.
    #[command(after_help = "Example: redox-vm bundle web.toml db.toml -o vms.cpio")]
    Bundle {
        /// The VMs' descriptions
        #[arg(required = true, value_name = "CONFIG")]
        configs: Vec<PathBuf>,
        /// The archive
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

const RUN_EXAMPLES: &str = "Examples:
  redox-vm run examples/linux.toml
  redox-vm run hello.toml --backend=sandbox --stats=-";

/// How vCPUs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// KVM where it runs guests at hardware speed, else what needs no hardware
    Auto,
    /// Linux KVM, or an error
    Kvm,
    /// Our bare-metal image in QEMU's emulated processor: no hardware needed
    Qemu,
    /// A sandboxed process, for unikernels only: no hardware needed
    Sandbox,
}

fn main() {
    let start_ns = host_linux::clock::monotonic_ns();
    tell::set_program("redox-vm");
    inherited::settle();
    let done = match Arguments::parse().command {
        Command::Run(options) => run::run(&options, start_ns),
        Command::Tender { words } => tender::run(&words),
        Command::Check { config } => check::check(&config).map(|()| 0),
        Command::Bundle { configs, output } => bundle::write(&configs, &output).map(|()| 0),
    };
    let status = done.unwrap_or_else(|text| {
        tell::warn(text);
        FAILURE
    });
    end(status)
}

/// Ends the process without what Rust's runtime does last: the system calls for it are forbidden
/// by now.
#[allow(unsafe_code)]
fn end(status: i32) -> ! {
    // SAFETY: nothing that another thread does or that was to be written is left.
    unsafe { libc::_exit(status) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}
