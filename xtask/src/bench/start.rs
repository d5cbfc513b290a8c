//! From exec to the first console output and to the exit; and starts per second on all CPUs.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::Contender;
use super::guests::Guests;
use super::table::Table;

/// Times hello, all contenders in turn, with `/bin/true` as the limit.
pub fn measure(contenders: &[Contender], guests: &Guests, runs: usize) -> Result<()> {
    println!("\nhello: microseconds, medians of {runs}; starts per second on all CPUs");
    let mut table = Table::new(contenders).with("/bin/true");
    for _ in 0..runs {
        for (column, contender) in contenders.iter().enumerate() {
            let (first, exit) = once(&mut contender.hello(guests))?;
            table.add("exec to first output", column, first);
            table.add("exec to exit", column, exit);
        }
        table.add("exec to exit", contenders.len(), once(&mut Command::new("/bin/true"))?.1);
    }
    for _ in 0..3 {
        for (column, contender) in contenders.iter().enumerate() {
            let hello = || contender.hello(guests);
            table.add("starts per second", column, per_second(hello, runs)?);
        }
        let rate = per_second(|| Command::new("/bin/true"), runs)?;
        table.add("starts per second", contenders.len(), rate);
    }
    table.print();
    Ok(())
}

/// Microseconds from the start of the process to its first output and to its end.
fn once(command: &mut Command) -> Result<(f64, f64)> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().context("cannot start a contender")?;
    let mut output = child.stdout.take().context("no pipe")?;
    let mut byte = [0];
    let _ = output.read(&mut byte)?;
    let first = start.elapsed();
    output.read_to_end(&mut Vec::new())?;
    child.wait()?;
    Ok((first.as_secs_f64() * 1e6, start.elapsed().as_secs_f64() * 1e6))
}

/// Starts on all CPUs at once, each as soon as the one before it has ended.
fn per_second(command: impl Fn() -> Command + Sync, runs: usize) -> Result<f64> {
    let cpus = std::thread::available_parallelism()?.get();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus)
            .map(|_| scope.spawn(|| (0..runs).try_for_each(|_| once(&mut command()).map(drop))))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    Ok((cpus * runs) as f64 / start.elapsed().as_secs_f64())
}
