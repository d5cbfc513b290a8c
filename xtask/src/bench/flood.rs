//! A ping flood through a TAP in a network namespace of its own.

use std::process::Command;

use anyhow::{Context, Result};

use super::Contender;
use crate::paths;

/// In a fresh namespace: a TAP, the guest behind it, and a bounded flood. Packets per second with
/// many in flight, then the round trip with one in flight.
const SCRIPT: &str = r#"
set -e
ip link set lo up
ip tuntap add tap100 mode tap
ip addr add 10.0.0.1/24 dev tap100
ip link set tap100 up
"$@" >/dev/null 2>&1 &
guest=$!
for try in 1 2 3 4 5 6 7 8 9 10; do ping -q -c 1 -W 1 10.0.0.2 >/dev/null 2>&1 && break; done
ping -q -f -l 32 -c "$PINGS" -W 5 10.0.0.2 | tail -n 2
ping -q -f -c "$((PINGS / 10))" -W 5 10.0.0.2 | tail -n 1
kill $guest 2>/dev/null || true
wait $guest 2>/dev/null || true
"#;

/// Floods each contender that runs our unikernels; says why not where it cannot.
pub fn measure(contenders: &[Contender], pings: u64) -> Result<()> {
    if pings == 0 {
        return Ok(());
    }
    for program in ["unshare", "ip", "ping"] {
        if paths::on_path(program).is_none() {
            println!("\nping flood: left out, there is no {program} here");
            return Ok(());
        }
    }
    println!("\nping flood, {pings} packets with 32 in flight, then one in flight");
    for contender in contenders {
        let options = ["--net:service0=tap100"];
        let Some(guest) = contender.ours("net", &options, &["--raw", "--ip=10.0.0.2/24"]) else {
            continue;
        };
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", SCRIPT, "flood"]).env("PINGS", pings.to_string());
        command.arg(guest.get_program()).args(guest.get_args());
        let output = command.output().context("cannot make a network namespace")?;
        println!("{}:", contender.name);
        print!("{}", String::from_utf8_lossy(&output.stdout));
        if !output.status.success() {
            print!("left out: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(())
}
