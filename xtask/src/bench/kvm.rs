//! On KVM: instructions from exec to exit, counted in the emulated machine, where they are the
//! same at each run and seconds mean nothing.

use anyhow::Result;

use super::guests::Guests;
use crate::qemu::initramfs::Programs;
use crate::qemu::{Machine, count};
use crate::{paths, process, vm};

/// Counted runs of each program; the first ones read it in.
const RUNS: usize = 4;

/// Counts hello, beside `solo5-hvt` where it is on PATH.
///
/// # Errors
/// If the machine cannot be had.
pub fn measure(guests: &Guests) -> Result<()> {
    let mut files = vm::own_files()?;
    files.add_file("/bin/mark", &count::marker()?)?;
    let mut programs = vec!["redox-hvt --backend=kvm", "redox-hvt --backend=auto"];
    if let Some(peer) = paths::on_path("solo5-hvt") {
        files.add_program("/opt/peer/solo5-hvt", &peer)?;
        programs.insert(0, "solo5-hvt");
    }
    let hello = guests.get("hello", "hvt").unwrap_or_else(|| paths::unikernels().join("hello.hvt"));
    files.add_file("/root/hello.hvt", &hello)?;
    let mut script = String::from(
        "cd /tmp; cp /opt/bin/redox-hvt /root/hello.hvt .\n\
         [ -e /opt/peer/solo5-hvt ] && cp /opt/peer/solo5-hvt .\n",
    );
    for program in &programs {
        for _ in 0..RUNS {
            script
                .push_str(&format!("mark ./{program} --mem=512 -- hello.hvt >/dev/null || exit\n"));
        }
    }
    process::say("booting the test machine");
    let machine = Machine { name: "bench".into(), count: true, ..Machine::default() };
    let outcome = machine.run(files, &script, |line| println!("{line}"))?;
    anyhow::ensure!(outcome.status == 0, "the script ended with {}", outcome.status);
    let spent: Vec<_> = outcome.counts.chunks_exact(2).map(|pair| pair[1].since(pair[0])).collect();
    println!("\nhello on KVM: instructions from exec to exit (ratio to the first line)");
    println!("{:26}{:>18}{:>18}{:>10}{:>9}", "", "all", "user mode", "guest", "VMRUNs");
    let mut reference = None;
    for (program, runs) in programs.iter().zip(spent.chunks_exact(RUNS)) {
        let mut runs = runs[1..].to_vec();
        runs.sort_by_key(|run| run.total());
        let run = runs[runs.len() / 2];
        let (all, user) = *reference.get_or_insert((run.total(), run.host_user));
        let with = |value: u64, to: u64| format!("{value} ({:.2})", value as f64 / to as f64);
        println!(
            "{program:26}{:>18}{:>18}{:>10}{:>9}",
            with(run.total(), all),
            with(run.host_user, user),
            run.guest_kernel + run.guest_user,
            run.vmruns
        );
    }
    Ok(())
}
