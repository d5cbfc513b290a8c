//! Memory of the tender beyond the guest's own pages, while a guest runs.

use std::fs::read_to_string;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result};

use super::Contender;
use super::guests::Guests;

/// Guest memory of solo5-spt and of the sandbox's guest process lies below this; neither program
/// has anything of its own there.
const ABOVE_GUESTS: u64 = 1 << 32;

/// Names of mappings that are guest memory: the sandbox's, and shared memory without a name, which
/// is what the hvt tenders have.
const GUEST_MEMORY: [&str; 2] = ["guest-memory", "/dev/zero (deleted)"];

/// KiB of resident memory that is not the guest's, of what `/proc/PID/smaps` says.
fn resident(smaps: &str) -> u64 {
    let mut sum = 0;
    let mut is_guest = false;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((start, _)) = first.split_once('-') {
            let start = u64::from_str_radix(start, 16).unwrap_or(u64::MAX);
            let named = GUEST_MEMORY.iter().any(|name| line.contains(name));
            is_guest = named || start < ABOVE_GUESTS;
        } else if first == "Rss:" && !is_guest {
            let number = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
            sum += number.unwrap_or(0);
        }
    }
    sum
}

fn children(pid: u32) -> Vec<u32> {
    let list = read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Looks at a guest that has printed something and goes on.
pub fn measure(contenders: &[Contender], guests: &Guests) -> Result<()> {
    println!("\nresident memory of the tender, without guest memory");
    // A guest that lasts: half a minute of clock readings, or a sleep.
    let (guest, arguments): (_, &[&str]) =
        if guests.same_for_all() { ("time", &[]) } else { ("clock", &["sleep", "3000"]) };
    for contender in contenders {
        let Some(mut command) = contender.command(guests, guest, &["--mem=16"], arguments) else {
            continue;
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start a contender")?;
        if guests.same_for_all() {
            let output = child.stdout.take().context("no pipe")?;
            BufReader::new(output).read_line(&mut String::new())?;
        } else {
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        let pids = [vec![child.id()], children(child.id())].concat();
        let each: Vec<u64> = pids
            .iter()
            .filter_map(|pid| Some(resident(&read_to_string(format!("/proc/{pid}/smaps")).ok()?)))
            .collect();
        let processes = each.iter().map(u64::to_string).collect::<Vec<_>>().join(" + ");
        println!("{:26}{:8} KiB ({processes})", contender.name, each.iter().sum::<u64>());
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_does_not_count() {
        let smaps = "00010000-20000000 rw-p 00000000 00:00 0\nRss: 100 kB\n\
            7f0000000000-7f0000001000 rw-s 00000000 00:01 1 /memfd:guest-memory (deleted)\n\
            Size: 8 kB\nRss: 50 kB\n\
            55d000000000-55d000002000 r-xp 00000000 08:01 3 /bin/x\nSize: 8 kB\nRss: 7 kB\n";
        assert_eq!(resident(smaps), 7);
    }
}
