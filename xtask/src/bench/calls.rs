//! What one hypercall costs, as the guest's own clock has it.

use std::fs::File;

use anyhow::{Context, Result, bail};

use super::Contender;
use crate::paths;

/// Guest, options and arguments of each figure; the disk is put in for `{}`.
const FIGURES: [(&str, &str, [&str; 2]); 6] = [
    ("walltime", "clock", ["bench", "walltime"]),
    ("poll", "clock", ["bench", "poll"]),
    ("puts", "clock", ["bench", "puts"]),
    ("monotonic", "clock", ["bench", "monotonic"]),
    ("block_read", "block", ["bench", "read"]),
    ("block_write", "block", ["bench", "write"]),
];

/// Sector size of the block figures.
const SECTOR: &str = "4096";

/// Runs each figure on each contender that runs our unikernels.
pub fn measure(contenders: &[Contender], calls: u64) -> Result<()> {
    let disk = paths::work("bench")?.join("disk.img");
    File::create(&disk)?.set_len(16 << 20)?;
    println!("\nhypercalls: ns each, of {calls} ({SECTOR}-byte blocks in the page cache)");
    for contender in contenders {
        for (name, guest, arguments) in FIGURES {
            let count = calls.to_string();
            let arguments = [arguments[0], arguments[1], &count];
            let block = format!("--block:storage={}", disk.display());
            let sector = format!("--block-sector-size:storage={SECTOR}");
            let options: &[&str] = if guest == "block" { &[&block, &sector] } else { &[] };
            let Some(mut command) = contender.ours(guest, options, &arguments) else { break };
            let output = command.output().context("cannot start a contender")?;
            let text = String::from_utf8_lossy(&output.stdout);
            let Some(ns) = text.lines().rev().find_map(figure) else {
                bail!("{}: no figure in what {guest} printed: {text}", contender.name);
            };
            println!("{:20} {name:12} {ns:>10}", contender.name);
        }
    }
    Ok(())
}

/// The number in `NAME: N ns per operation, ...`.
fn figure(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(": ")?;
    rest.split_once(" ns per operation").map(|(number, _)| number)
}
