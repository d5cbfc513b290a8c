//! Memory of the tender beyond the guest's own pages, while a guest runs.

use std::fs::read_to_string;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result};

use super::Contender;

/// What `/proc/PID/status` says, in KiB: private memory and mapped files. Guest memory is shared
/// memory with both tenders, and is counted apart.
fn overhead(pid: u32) -> Option<u64> {
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some(field("RssAnon:")? + field("RssFile:")?)
}

fn children(pid: u32) -> Vec<u32> {
    let list = read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Looks at a guest that spins.
pub fn measure(contenders: &[Contender]) -> Result<()> {
    println!("\nmemory of the tender (private and file pages, all its processes) in KiB");
    for contender in contenders {
        let Some(mut command) = contender.ours("clock", &[], &["sleep", "2000"]) else { continue };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start a contender")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let pids = [vec![child.id()], children(child.id())].concat();
        let total: u64 = pids.iter().filter_map(|&pid| overhead(pid)).sum();
        println!("{:20} {total:8} in {} process(es)", contender.name, pids.len());
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}
