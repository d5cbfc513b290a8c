//! From exec to the first console output and to the exit; and starts per second on all CPUs.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use super::{Contender, median};

/// Times hello, all contenders in turn, with `/bin/true` as the limit.
pub fn measure(contenders: &[Contender], runs: usize) -> Result<()> {
    println!("\nhello, {runs} runs in turn: median in us");
    println!("{:20} {:>14} {:>14} {:>16}", "", "first output", "exit", "starts/second");
    let mut times = vec![(Vec::new(), Vec::new()); contenders.len() + 1];
    for _ in 0..runs {
        for (contender, (first, exit)) in contenders.iter().zip(&mut times) {
            let (a, b) = once(&mut contender.hello())?;
            first.push(a);
            exit.push(b);
        }
        let (a, b) = once(&mut Command::new("/bin/true"))?;
        let last = times.len() - 1;
        times[last].0.push(a);
        times[last].1.push(b);
    }
    let names = contenders.iter().map(|c| c.name.as_str()).chain(["/bin/true"]);
    for (index, (name, (mut first, mut exit))) in names.zip(times).enumerate() {
        let rate = match contenders.get(index) {
            Some(contender) => per_second(contender, runs)?,
            None => f64::NAN,
        };
        println!("{name:20} {:14.0} {:14.0} {rate:16.0}", median(&mut first), median(&mut exit));
    }
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
fn per_second(contender: &Contender, runs: usize) -> Result<f64> {
    let cpus = std::thread::available_parallelism()?.get();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus)
            .map(|_| {
                scope.spawn(|| (0..runs).try_for_each(|_| once(&mut contender.hello()).map(drop)))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    Ok((cpus * runs) as f64 / start.elapsed().as_secs_f64())
}
