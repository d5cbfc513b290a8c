//! `cargo xtask bench baremetal`: what our own image costs, in instructions.
//!
//! One emulated CPU whose clock counts instructions, so the same inputs give the same counts. The
//! image, the test kernel and the first VMRUN mark where they are (`xtask/icount/count.c`); what
//! exits cost, the test kernel measures by its cycle counter, on the image and, for comparison, on
//! Linux's KVM in the same machine. What the figures mean is in `docs/benchmarks.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::image::{self, bundle};
use crate::qemu::count::{self, Count};
use crate::qemu::initramfs::Files;
use crate::qemu::{self, Machine};
use crate::setup::{kernel, programs};
use crate::{paths, process, test_kernel, unikernel, vm};

/// How to measure.
#[derive(clap::Args)]
pub struct Options {
    /// Exits of each kind
    #[arg(long, default_value_t = 2_000)]
    rounds: u64,
    /// Leave out Linux's KVM, which takes minutes
    #[arg(long)]
    no_kvm: bool,
    /// Leave out starting Linux, which takes minutes
    #[arg(long)]
    no_linux: bool,
}

/// RAM of the machine in MiB.
const MEMORY: u32 = 1024;
/// A run that is not done by then is ended.
const LIMIT: Duration = Duration::from_secs(1_800);
/// The last word of the RAM disk of the Linux runs: the marker, then off.
const INIT: &str = "#!/bin/sh\n/bin/mark /bin/busybox true\n/bin/busybox poweroff -f\n";

/// Measures.
///
/// # Errors
/// If something cannot be built or started.
pub fn measure(options: &Options) -> Result<()> {
    let image = image::build()?;
    let size = fs::metadata(&image)?.len();
    println!("image: {} KiB", size.div_ceil(1024));
    let kernel = test_kernel::build()?;
    starts(&image, &kernel)?;
    exits(&image, &kernel, options)?;
    if !options.no_linux {
        linux(&image, &kernel, options)?;
    }
    Ok(())
}

/// A run of QEMU: its counts, and what its serial port said.
struct Run {
    counts: Vec<Count>,
    text: String,
}

/// Runs the emulated machine with these arguments.
fn run(name: &str, arguments: &[&str]) -> Result<Run> {
    let counts = paths::work("bench")?.join(format!("{name}.counts"));
    let _ = fs::remove_file(&counts);
    let mut command = programs::qemu()?.command();
    image::hardware(&mut command, MEMORY, 1);
    // QEMU cannot count where x2APIC registers are used ("Bad icount read").
    command.args(["-cpu", "max,-x2apic"]);
    command.args(["-icount", "shift=0,sleep=off", "-seed", "1"]);
    command.args(["-rtc", "base=2026-01-01T00:00:00,clock=vm"]);
    command.arg("-plugin").arg(count::plugin_option_with_vmrun(&counts)?);
    command.args(["-serial", "stdio"]).args(arguments);
    let mut command = qemu::bounded(&command, LIMIT);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    Ok(Run { counts: count::read(&counts)?, text })
}

/// A bundle with this description and these files, in the work folder.
fn bundle(name: &str, description: &str, files: &[(&str, &Path)]) -> Result<PathBuf> {
    let folder = paths::work("bench")?.join(name);
    fs::create_dir_all(&folder)?;
    let config = folder.join(format!("{name}.toml"));
    fs::write(&config, description)?;
    let mut all = vec![config];
    for (name, from) in files {
        let to = folder.join(name);
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        all.push(to);
    }
    let archive = folder.join("bundle.cpio");
    fs::write(&archive, bundle::make(&all)?)?;
    Ok(archive)
}

fn on_image(name: &str, image: &Path, module: &Path, words: &str) -> Result<Run> {
    let [image, module] = [image, module].map(|path| path.display().to_string());
    run(name, &["-kernel", &image, "-initrd", &module, "-append", words])
}

fn type1(memory: &str, kernel: &str, more: &str) -> String {
    format!(
        "[vm]\nname = \"guest\"\nmode = \"type1\"\nmemory = \"{memory}\"\n\
         [vm.type1]\nkernel = \"{kernel}\"\n{more}\n"
    )
}

/// From the image's first instruction, and from a VM's creation, to a guest's first instruction.
fn starts(image: &Path, kernel: &Path) -> Result<()> {
    let hello = unikernel::build_example("hello")?;
    let hvt = "[vm]\nname = \"hello\"\nmode = \"hvt\"\nmemory = \"64M\"\n\
               [vm.hvt]\nunikernel = \"hello.hvt\"\n";
    let hvt = bundle("hello", hvt, &[("hello.hvt", &hello)])?;
    let machine = type1("64M", "test-kernel", "cmdline = \"\"");
    let machine = bundle("machine", &machine, &[("test-kernel", kernel)])?;
    let idle = on_image("memory", image, &hvt, "start=none exit console=off")?;
    println!("memory in use before guests: {} KiB", in_use(&idle.text)?);
    println!("\ninstructions to a guest's first instruction, 64 MiB of memory");
    println!("{:26}{:>16}{:>16}", "", "image's entry", "VM's creation");
    for (name, module) in [("HVT, hello", hvt), ("Type 1, test kernel", machine)] {
        let run = on_image("start", image, &module, "exit console=off")?;
        let [entry, create, first] =
            run.counts.get(..3).and_then(|c| c.try_into().ok()).with_context(|| {
                format!("the image did not get to a guest: it said\n{}", run.text)
            })?;
        let [entry, create] = [entry, create].map(|from| first.since(from).total());
        println!("{name:26}{entry:>16}{create:>16}");
    }
    Ok(())
}

/// What the image says of its memory when it begins, in KiB.
fn in_use(text: &str) -> Result<u64> {
    let before = text.split(" KiB in use").next().filter(|before| before.len() < text.len());
    let number = before.and_then(|before| before.rsplit(' ').next()?.parse().ok());
    number.with_context(|| format!("the image did not tell what memory it uses: it said\n{text}"))
}

/// The lines `measure NAME TICKS` of a run, behind whatever names its VM.
fn measured(text: &str) -> BTreeMap<String, u64> {
    let figure = |line: &str| {
        let mut words = line.split("measure ").nth(1)?.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(figure).collect()
}

/// What exits cost.
fn exits(image: &Path, kernel: &Path, options: &Options) -> Result<()> {
    let line = format!("cmdline = \"measure={}\"", options.rounds);
    let description = type1("128M", "test-kernel", &line);
    let module = bundle("exits", &description, &[("test-kernel", kernel)])?;
    let run = on_image("exits", image, &module, "exit console=off")?;
    let ours = measured(&run.text);
    ensure!(!ours.is_empty(), "the test kernel measured nothing: the image said\n{}", run.text);
    let kvm = if options.no_kvm { BTreeMap::new() } else { on_kvm(&description, kernel)? };
    println!("\ninstructions of an exit and its return, guest and host together");
    println!("{:26}{:>16}{:>16}{:>8}", "", "our image", "Linux's KVM", "ratio");
    for (name, cost) in &ours {
        match kvm.get(name) {
            Some(peer) => {
                println!("{name:26}{cost:>16}{peer:>16}{:>8.2}", *cost as f64 / *peer as f64);
            }
            None => println!("{name:26}{cost:>16}"),
        }
    }
    Ok(())
}

/// The same guest on Linux's KVM, driven by `redox-vm`, in the emulated machine.
fn on_kvm(description: &str, kernel: &Path) -> Result<BTreeMap<String, u64>> {
    let mut files = vm::own_files()?;
    files.add_bytes("/root/guest.toml", 0o644, description.as_bytes().to_vec());
    files.add_file("/root/test-kernel", kernel)?;
    process::say("booting the test machine, for Linux's KVM");
    let machine = Machine { name: "bench".into(), count: true, ..Machine::default() };
    let mut text = String::new();
    let script = "cd /root; redox-vm run --backend=kvm guest.toml </dev/null";
    machine.run(files, script, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    Ok(measured(&text))
}

/// Debian's kernel from its first instruction to init: on the bare machine, on the image, and on
/// Linux's KVM in that machine.
fn linux(image: &Path, kernel: &Path, options: &Options) -> Result<()> {
    let debian = kernel::get()?;
    let mut files = Files::default();
    files.add_file("/bin/busybox", &programs::busybox()?)?;
    files.add_link("/bin/sh", "busybox");
    files.add_file("/bin/mark", &count::marker()?)?;
    files.add_bytes("/init", 0o755, INIT.into());
    let initrd = paths::work("bench")?.join("initramfs.cpio");
    fs::write(&initrd, files.archive()?)?;
    let line = "console=ttyS0 nokaslr quiet loglevel=4 panic=-1";
    let paths = [&debian.image, &initrd, &kernel.to_path_buf()].map(|p| p.display().to_string());
    process::say("Linux on the bare machine");
    let bare = run("bare", &["-kernel", &paths[0], "-initrd", &paths[1], "-append", line])?;
    // What comes before a kernel there: the test kernel marks its first instruction.
    let firmware = run("firmware", &["-kernel", &paths[2], "-append", "end=off"])?;
    process::say("Linux on the image");
    let more = format!("initrd = \"initramfs.cpio\"\ncmdline = \"{line}\"");
    let description = type1("512M", "vmlinuz", &more);
    let files = [("vmlinuz", debian.image.as_path()), ("initramfs.cpio", initrd.as_path())];
    let module = bundle("linux", &description, &files)?;
    let ours = on_image("linux", image, &module, "exit console=off")?;
    let at = |run: &Run, index: usize| {
        let missing = || format!("no marker was reached: the machine said\n{}", run.text);
        run.counts.get(index).copied().with_context(missing)
    };
    let bare = at(&bare, 0)?.since(at(&firmware, 0)?).total();
    // Markers: the image's entry, the VM's creation, the first VMRUN, init.
    let spent = at(&ours, 3)?.since(at(&ours, 2)?);
    let all = spent.total();
    println!("\nDebian's Linux, 1 vCPU, 512 MiB, first instruction to init");
    println!("bare machine              {bare:>16}");
    println!("our image                 {all:>16}  ratio {:.4}", all as f64 / bare as f64);
    println!(
        "  of which guest          {:>16}, ours {}, VMRUNs {}",
        spent.guest_kernel + spent.guest_user,
        spent.host_kernel + spent.host_user,
        spent.vmruns
    );
    if !options.no_kvm {
        let kvm = linux_on_kvm(&description, &debian.image, &initrd, kernel)?;
        let (all, ratio) = (kvm.total(), kvm.total() as f64 / bare as f64);
        println!("Linux's KVM, redox-vm     {all:>16}  ratio {ratio:.4}");
        println!("  VMRUNs                  {:>16}", kvm.vmruns);
    }
    Ok(())
}

/// From the first instruction to init on KVM, driven by `redox-vm`: what comes before is counted
/// with the test kernel, whose first instruction is a marker, and taken off.
fn linux_on_kvm(description: &str, linux: &Path, initrd: &Path, kernel: &Path) -> Result<Count> {
    let mut files = vm::own_files()?;
    files.add_file("/bin/mark", &count::marker()?)?;
    files.add_bytes("/root/linux.toml", 0o644, description.as_bytes().to_vec());
    files.add_file("/root/vmlinuz", linux)?;
    files.add_file("/root/initramfs.cpio", initrd)?;
    let first = type1("512M", "test-kernel", "cmdline = \"end=off\"");
    files.add_bytes("/root/first.toml", 0o644, first.into_bytes());
    files.add_file("/root/test-kernel", kernel)?;
    process::say("Linux on Linux's KVM");
    let machine =
        Machine { name: "bench".into(), count: true, memory: MEMORY, ..Machine::default() };
    // Once for the page cache, then counted.
    let script = "cd /root; run() { redox-vm run --backend=kvm $1.toml </dev/null; }\n\
                  cat * >/dev/null; run first\n\
                  for vm in first linux; do mark /bin/busybox true; run $vm; done\n";
    let outcome = machine.run(files, script, |_| ())?;
    // Markers: the first kernel; a pair and the second one; a pair and init's pair; the end.
    let [_, _, start, first, _, begin, init, ..] = outcome.counts[..] else {
        anyhow::bail!("{} markers were reached, not 8: see {}", outcome.counts.len(), LOG);
    };
    let before = first.since(start);
    let mut spent = init.since(begin);
    spent.host_kernel = spent.host_kernel.saturating_sub(before.host_kernel);
    spent.host_user = spent.host_user.saturating_sub(before.host_user);
    Ok(spent)
}

/// Where the test machine's words are.
const LOG: &str = "target/xtask/vm/bench/kernel.log";

#[cfg(test)]
mod tests {
    use super::{in_use, measured};

    #[test]
    fn the_image_tells_its_memory() {
        assert_eq!(in_use("x 1: 7 MiB free, 2932 KiB in use\nmore").unwrap(), 2932);
        assert!(in_use("nothing").is_err());
    }

    #[test]
    fn figures_are_found_behind_a_vms_name() {
        let found = measured("[guest] measure out 250\nmeasure cpuid 100\nmeasure x\nother");
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("cpuid".to_owned(), 100), ("out".to_owned(), 250)]
        );
    }
}
