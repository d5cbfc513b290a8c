//! What one hypercall costs, as the guest's own clock has it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Contender;
use super::guests::Guests;
use super::table::Table;
use crate::paths;

/// Sector size of the block figures, in bytes.
const SECTOR: &str = "4096";
/// A TAP in a network namespace of its own, for the network figures.
pub const IN_NAMESPACE: &str = r#"
set -e
ip link set lo up
ip tuntap add tap100 mode tap
ip addr add 10.0.0.1/24 dev tap100
ip link set tap100 up
"#;

/// Runs each figure on each contender, in turn.
pub fn measure(contenders: &[Contender], guests: &Guests, calls: u64, rounds: usize) -> Result<()> {
    let disk = disk()?;
    println!("\nhypercalls: nanoseconds each, of {calls}, medians of {rounds} runs");
    let mut table = Table::new(contenders);
    for _ in 0..rounds {
        for (column, contender) in contenders.iter().enumerate() {
            for mut command in commands(contender, guests, &disk, &calls.to_string()) {
                let output = command.output().context("cannot start a contender")?;
                let text = String::from_utf8_lossy(&output.stdout);
                let figures: Vec<_> = text.lines().filter_map(figure).collect();
                if figures.is_empty() {
                    bail!("{}: no figure in what {command:?} printed: {text}", contender.name);
                }
                for (name, ns) in figures {
                    table.add(name, column, ns);
                }
            }
        }
    }
    table.print();
    Ok(())
}

/// A file in memory where there is such a file system: a disk's own work is not the question.
fn disk() -> Result<PathBuf> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { paths::work("bench")? };
    let disk = folder.join(format!("redox-hvt-bench-{}.img", std::process::id()));
    // The folder is everybody's: what lies there under that name, a link too, is not ours.
    File::create_new(&disk)
        .with_context(|| format!("{} cannot be created: remove it", disk.display()))?
        .set_len(16 << 20)?;
    Ok(disk)
}

fn commands(contender: &Contender, guests: &Guests, disk: &Path, calls: &str) -> Vec<Command> {
    let block = format!("--block:storage={}", disk.display());
    let sector = format!("--block-sector-size:storage={SECTOR}");
    let block: &[&str] = &["--mem=16", &block, &sector];
    let all = if guests.same_for_all() {
        vec![
            contender.command(guests, "calls", &["--mem=16"], &[calls]),
            contender.command(guests, "calls-block", block, &[calls]),
            contender
                .command(guests, "calls-net", &["--mem=16", "--net:service0=tap100"], &[calls])
                .filter(|_| paths::on_path("unshare").is_some() && paths::on_path("ip").is_some())
                .map(|command| in_namespace("exec \"$@\"", &command)),
        ]
    } else {
        let clock = |what| contender.command(guests, "clock", &[], &["bench", what, calls]);
        let disk = |what| contender.command(guests, "block", block, &["bench", what, calls]);
        vec![clock("walltime"), clock("poll"), clock("puts"), clock("monotonic")]
            .into_iter()
            .chain([disk("write"), disk("read")])
            .collect()
    };
    all.into_iter().flatten().collect()
}

/// The same command in a namespace with a TAP, run as `"$@"` of a script.
pub fn in_namespace(script: &str, command: &Command) -> Command {
    let mut all = Command::new("unshare");
    all.args(["--net", "sh", "-c", &format!("{IN_NAMESPACE}{script}"), "bench"]);
    all.arg(command.get_program()).args(command.get_args());
    all
}

/// `NAME N.N`, or `NAME: N ns per operation, ...` of the examples. What a guest has printed with
/// `puts` may stand before it.
fn figure(line: &str) -> Option<(&str, f64)> {
    let line = line.trim_start_matches('.');
    let (name, number) = match line.split_once(": ") {
        Some((name, rest)) => (name, rest.split_once(" ns per operation")?.0),
        None => line.split_once(' ')?,
    };
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    Some((name, number.parse().ok().filter(|_| plain)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_both_kinds_of_guest_are_read() {
        assert_eq!(figure("....puts 12.5"), Some(("puts", 12.5)));
        assert_eq!(figure("read: 7 ns per operation, 9 operations"), Some(("read", 7.0)));
        assert_eq!(figure("Solo5: 3"), None);
        assert_eq!(figure("Hello, World"), None);
    }
}
