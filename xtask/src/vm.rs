//! `cargo xtask vm`: a command in a test machine, to try things by hand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::qemu::initramfs::{Files, Programs};
use crate::qemu::{Machine, count};
use crate::{paths, process};

/// Options of `cargo xtask vm`.
#[derive(clap::Args)]
pub struct Options {
    /// Count instructions; `mark COMMAND` in the machine counts one command
    #[arg(long)]
    icount: bool,
    /// RAM in MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// CPUs; the command runs on all but the first, unless it is the only one
    #[arg(long, default_value_t = 3)]
    cpus: u32,
    /// End the machine after so many seconds
    #[arg(long, default_value_t = 900)]
    timeout: u64,
    /// A file or folder to copy to /root/ (or to DEST, an absolute path)
    #[arg(long = "file", value_name = "PATH[:DEST]")]
    files: Vec<String>,
    /// A program to copy to /opt/bin/, with its libraries
    #[arg(long = "peer", value_name = "PATH")]
    peers: Vec<PathBuf>,
    /// What /bin/sh shall run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs it and returns the command's status.
pub fn run(options: &Options) -> Result<i32> {
    let mut files = own_files()?;
    for file in &options.files {
        let (from, to) = match file.split_once(':') {
            Some((from, to)) => (Path::new(from), to.to_owned()),
            None => (Path::new(file), format!("/root/{}", name(Path::new(file)))),
        };
        if from.is_dir() {
            files.add_folder(&to, from)?;
        } else {
            files.add_file(&to, from)?;
        }
    }
    for peer in &options.peers {
        files.add_program(&format!("/opt/bin/{}", name(peer)), peer)?;
    }
    if options.icount {
        files.add_file("/bin/mark", &count::marker()?)?;
    }
    let machine = Machine {
        memory: options.memory,
        cpus: options.cpus,
        count: options.icount,
        timeout: Duration::from_secs(options.timeout),
        ..Machine::default()
    };
    process::say("booting the test machine");
    let outcome = machine.run(files, &options.command.join(" "), |line| println!("{line}"))?;
    report(&outcome.counts);
    Ok(outcome.status)
}

/// The tender and the unikernels, as far as they are built: `/opt/bin/redox-hvt` and
/// `/unikernels`.
pub fn own_files() -> Result<Files> {
    let mut files = Files::default();
    if paths::tender().exists() {
        files.add_program("/opt/bin/redox-hvt", &paths::tender())?;
        files.add_link("/opt/bin/solo5-hvt", "redox-hvt");
    }
    if paths::manager().exists() {
        files.add_program("/opt/bin/redox-vm", &paths::manager())?;
    }
    if paths::unikernels().exists() {
        files.add_folder("/unikernels", &paths::unikernels())?;
    }
    Ok(files)
}

/// One line for each pair of markers: what was executed in between.
fn report(counts: &[count::Count]) {
    for pair in counts.chunks_exact(2) {
        let spent = pair[1].since(pair[0]);
        println!(
            "counted: {} instructions: host kernel {}, host user {}, guest {}; {} VMRUNs",
            spent.total(),
            spent.host_kernel,
            spent.host_user,
            spent.guest_kernel + spent.guest_user,
            spent.vmruns
        );
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
