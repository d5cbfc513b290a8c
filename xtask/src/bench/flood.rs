//! A ping flood through a TAP in a network namespace of its own.

use anyhow::{Context, Result};

use super::Contender;
use super::calls::in_namespace;
use super::guests::Guests;
use super::table::Table;
use crate::check::suites::path_with_programs;
use crate::paths;

/// A guest behind the TAP, a bounded flood with 32 in flight, and one with a single packet in
/// flight. Fails if the guest does not answer.
const SCRIPT: &str = r#"
"$@" >/dev/null 2>&1 &
guest=$!
trap 'kill $guest 2>/dev/null; wait $guest 2>/dev/null || true' EXIT
for try in 1 2 3 4 5 6 7 8 9 10; do ping -q -c 1 -W 1 10.0.0.2 >/dev/null 2>&1 && break; done
ping -q -c 1 -W 1 10.0.0.2 >/dev/null
timeout 30 ping -q -f -l 32 -c "$PINGS" -W 5 10.0.0.2
timeout 30 ping -q -f -c "$((PINGS / 10))" -W 5 10.0.0.2
"#;

/// Floods each contender in turn; says why not where it cannot.
pub fn measure(contenders: &[Contender], guests: &Guests, pings: u64, rounds: usize) -> Result<()> {
    if pings == 0 {
        return Ok(());
    }
    let path = path_with_programs()?;
    if paths::on_path("unshare").is_none() {
        println!("\nping flood: left out, there is no unshare here");
        return Ok(());
    }
    println!("\nping flood: {pings} packets, medians of {rounds} runs");
    let arguments: &[&str] =
        if guests.same_for_all() { &[] } else { &["--raw", "--ip=10.0.0.2/24"] };
    let mut table = Table::new(contenders);
    for _ in 0..rounds {
        for (column, contender) in contenders.iter().enumerate() {
            let options = ["--mem=16", "--net:service0=tap100"];
            let Some(guest) = contender.command(guests, "net", &options, arguments) else {
                continue;
            };
            let mut command = in_namespace(SCRIPT, &guest);
            command.env("PINGS", pings.to_string()).env("PATH", &path);
            let output = command.output().context("cannot make a network namespace")?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                println!("{}: left out: {text}{why}", contender.name);
                continue;
            }
            note(&mut table, column, &text, pings);
        }
    }
    table.print();
    Ok(())
}

/// Takes the figures from what the two pings printed.
fn note(table: &mut Table, column: usize, text: &str, pings: u64) {
    let times = text.lines().filter_map(|line| {
        let (_, ms) = line.strip_suffix("ms")?.rsplit_once("time ")?;
        ms.parse::<f64>().ok()
    });
    let counts = [pings, pings / 10];
    let names = ["packets/s, 32 in flight", "packets/s, 1 in flight"];
    for ((ms, count), name) in times.zip(counts).zip(names) {
        table.add(name, column, count as f64 * 1000.0 / ms.max(1.0));
    }
}
