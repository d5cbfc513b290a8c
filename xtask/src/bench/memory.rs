//! Memory of the tender beyond the guest's own pages, at its peak.
//!
//! The kernel notes the peak of a process as a whole (`VmHWM`, proc(5)), guest pages among it, and
//! tells which pages are the guest's only as they are now (`smaps`). A guest gives no page back, so
//! what it has now it had at any later peak, and "peak until now, less the guest's pages now" is
//! the tender's own peak, or less than that by what the guest has touched since: the guest is
//! one that touches little, and that is printed too. A process is looked at again and again, and
//! the largest difference counts, so it does not matter when.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Contender;
use super::guests::Guests;

/// Guest memory of solo5-spt and of the sandbox's guest process lies below this; neither program
/// has anything of its own there.
const ABOVE_GUESTS: u64 = 1 << 32;

/// Names of mappings that are guest memory: the sandbox's, and shared memory without a name, which
/// is what the hvt tenders have.
const GUEST_MEMORY: [&str; 2] = ["guest-memory", "/dev/zero (deleted)"];

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// No guest takes longer; they sleep for five seconds at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// KiB of resident memory of one process, now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resident {
    guest: u64,
    own: u64,
}

impl Resident {
    /// From `/proc/PID/smaps`.
    fn parse(smaps: &str) -> Self {
        let mut sum = Self::default();
        let mut is_guest = false;
        for line in smaps.lines() {
            let first = line.split_whitespace().next().unwrap_or_default();
            if let Some((start, _)) = first.split_once('-') {
                let start = u64::from_str_radix(start, 16).unwrap_or(u64::MAX);
                let named = GUEST_MEMORY.iter().any(|name| line.contains(name));
                is_guest = named || start < ABOVE_GUESTS;
            } else if first == "Rss:" {
                let to = if is_guest { &mut sum.guest } else { &mut sum.own };
                *to += kib(line);
            }
        }
        sum
    }
}

/// The number in a line `NAME: NUMBER kB`.
fn kib(line: &str) -> u64 {
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// `VmHWM` of `/proc/PID/status`; a process that has ended has none.
fn high_water(status: &str) -> Option<u64> {
    status.lines().find(|line| line.starts_with("VmHWM:")).map(kib)
}

/// What has been seen of one process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Peak {
    /// KiB that are the tender's.
    own: u64,
    /// KiB that are the guest's.
    guest: u64,
}

impl Peak {
    /// Takes one more look into account.
    fn add(&mut self, now: &Resident, high_water: u64) {
        // The peak is of counters that may lag behind the pages.
        let peak = high_water.saturating_sub(now.guest).max(now.own);
        self.own = self.own.max(peak);
        self.guest = self.guest.max(now.guest);
    }
}

/// All processes of one tender, by their numbers.
type Peaks = BTreeMap<u32, Peak>;

fn look(pid: u32, peaks: &mut Peaks) {
    let read = |name: &str| read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let before = Resident::parse(&read("smaps"));
    let peak = high_water(&read("status"));
    let now = Resident::parse(&read("smaps"));
    // A look at a guest that grows meanwhile says nothing.
    if let Some(peak) = peak.filter(|_| before.guest == now.guest) {
        peaks.entry(pid).or_default().add(&now, peak);
    }
    children(pid).into_iter().for_each(|child| look(child, peaks));
}

/// Children of all threads of a process.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| read_to_string(thread.path().join("children")));
    let numbers = |list: std::io::Result<String>| -> Vec<u32> {
        let list = list.unwrap_or_default();
        list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    lists.flat_map(numbers).collect()
}

/// Looks at a tender until it ends.
fn watch(child: &mut Child) -> Result<Peaks> {
    let start = Instant::now();
    let mut peaks = Peaks::new();
    while child.try_wait()?.is_none() {
        ensure!(start.elapsed() < PATIENCE, "its guest has not ended after {PATIENCE:?}");
        look(child.id(), &mut peaks);
        std::thread::sleep(PAUSE);
    }
    ensure!(child.wait()?.success(), "its guest failed");
    ensure!(!peaks.is_empty(), "it ended before it could be looked at");
    Ok(peaks)
}

/// Peaks of a contender's processes; `None` where it has no such guest.
fn peaks(contender: &Contender, guests: &Guests) -> Result<Option<Peaks>> {
    // A guest that lasts for a while, asleep.
    let (guest, arguments): (_, &[&str]) =
        if guests.same_for_all() { ("time", &[]) } else { ("clock", &["sleep", "1000"]) };
    let Some(mut command) = contender.command(guests, guest, &["--mem=16"], arguments) else {
        return Ok(None);
    };
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().context("cannot start it")?;
    let peaks = watch(&mut child);
    if peaks.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
        child.wait()?;
    }
    peaks.map(Some)
}

/// Measures all.
///
/// # Errors
/// If a contender does not run its guest.
pub fn measure(contenders: &[Contender], guests: &Guests) -> Result<()> {
    println!("\npeak memory of the tender, without guest memory");
    for contender in contenders {
        let name = &contender.name;
        let Some(peaks) = peaks(contender, guests).with_context(|| name.clone())? else { continue };
        println!("{name:26}{}", shown(&peaks));
    }
    Ok(())
}

fn shown(peaks: &Peaks) -> String {
    let own: u64 = peaks.values().map(|peak| peak.own).sum();
    let guest = peaks.values().map(|peak| peak.guest).max().unwrap_or(0);
    let each: Vec<_> = peaks.values().map(|peak| peak.own.to_string()).collect();
    format!("{own:8} KiB ({}); {guest} KiB of the guest's left out", each.join(" + "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "00010000-20000000 rw-p 00000000 00:00 0\nRss: 100 kB\n\
        7f0000000000-7f0000001000 rw-s 00000000 00:01 1 /memfd:guest-memory (deleted)\n\
        Size: 8 kB\nRss: 50 kB\n\
        55d000000000-55d000002000 r-xp 00000000 08:01 3 /bin/x\nSize: 8 kB\nRss: 7 kB\n";

    #[test]
    fn guest_memory_is_told_from_the_tenders() {
        assert_eq!(Resident::parse(SMAPS), Resident { guest: 150, own: 7 });
    }

    #[test]
    fn a_peak_is_kept_whenever_it_was() {
        let mut peak = Peak::default();
        // Before the guest's memory is filled, with something large that is given back later.
        peak.add(&Resident { guest: 0, own: 300 }, 900);
        peak.add(&Resident { guest: 150, own: 500 }, 900);
        peak.add(&Resident { guest: 160, own: 500 }, 900);
        assert_eq!(peak, Peak { own: 900, guest: 160 });
        // A counter that lags behind.
        peak.add(&Resident { guest: 160, own: 1000 }, 900);
        assert_eq!(peak.own, 1000);
    }

    #[test]
    fn a_process_that_has_ended_has_no_peak() {
        assert_eq!(high_water("Name:\tx\nVmHWM:\t     780 kB\nVmRSS:\t 1 kB\n"), Some(780));
        assert_eq!(high_water("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn this_process_is_seen_with_its_child() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut peaks = Peaks::new();
        look(std::process::id(), &mut peaks);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(peaks[&child.id()].own > 0 && peaks[&std::process::id()].own > 0, "{peaks:?}");
        assert!(shown(&peaks).contains(" + "));
    }
}
