//! Whole machines on the bare-metal image, in QEMU's emulated machine: Debian's Linux, alone and
//! beside unikernels, and the test kernel, which misbehaves beside a guest that keeps count.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::image::{Test, boot_all, expect};
use super::log;
use super::tally::Tally;
use crate::image::{self, GOOD, GUESTS, PROMPT, Start, Trial, bundle};
use crate::setup::firmware::Firmware;
use crate::{linux, paths, test_kernel, unikernel};

const TESTS: [Test; 9] = [
    ("Linux has one processor", linux_shell),
    ("Linux has four processors on two, and a minute's load", linux_under_load),
    ("Linux and three unikernels run side by side", side_by_side),
    ("a disc's Linux is started by GRUB and SeaBIOS from the boot module", bundled_disc),
    ("discs of the boot module are shared, and disks are one VM's", shared_discs),
    ("a disc's Linux is started by GRUB and OVMF from a disk of the machine", machines_disc),
    ("a hostile machine harms nobody else", hostile),
    ("a hostile machine of three processors harms nobody else", hostile_processors),
    ("machines that never give way are stopped, and others have their share", endless),
];

/// Of the image with the self-test's checks, which find what the emulated processor would not: a
/// VMCB clean bit that is set and must not be.
const CHECKED: [Test; 2] = [
    ("Linux is checked at every entry", linux_shell),
    ("a hostile machine of three processors is checked at every entry", hostile_processors),
];

/// What Linux's shell says when it waits.
const SHELL: &str = "linux# ";
/// Seconds of the guest's clock for which it is loaded.
const LOAD: u32 = 60;
/// What would be in Linux's log if it had found something wrong with its machine.
const COMPLAINTS: &str = "WARNING:|Call Trace|unchecked MSR|BUG:|Oops";

/// Builds the image, with checks and as it is shipped, and runs the tests with whole machines.
pub fn boot(filter: Option<&str>) -> Result<Tally> {
    linux::build()?;
    unikernel::build_examples()?;
    let mut tally = boot_all(&image::build_with_self_test()?, &CHECKED, filter)?;
    tally.add(boot_all(&image::build()?, &TESTS, filter)?);
    Ok(tally)
}

/// A boot module of these descriptions and files.
fn module(name: &str, configs: &[(&str, String)], files: &[PathBuf]) -> Result<PathBuf> {
    let folder = paths::work("image")?.join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    for (name, text) in configs {
        fs::write(folder.join(format!("{name}.toml")), text)?;
    }
    for file in files {
        let to = folder.join(file.file_name().context("a file without a name")?);
        fs::copy(file, to).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let module = folder.with_extension("cpio");
    fs::write(&module, bundle::make(&[folder])?)?;
    Ok(module)
}

/// The command line of Linux.
const CMDLINE: &str = "console=ttyS0 panic=-1";

/// Machines with several CPUs run no guest on the first one: QEMU's emulation has a race there
/// (docs/testing.md, "The test machine"). These have two for guests, by the words of [`GUESTS`].
const CPUS: u32 = 3;

fn debian(vcpus: u32) -> (&'static str, String) {
    let [kernel, initrd] = linux::FILES;
    let text = format!(
        "[vm]\nname = \"linux\"\nmode = \"type1\"\nvcpus = {vcpus}\nmemory = \"192M\"\n\
         [vm.type1]\nkernel = \"{kernel}\"\ninitrd = \"{initrd}\"\n\
         cmdline = \"{CMDLINE}\"\n"
    );
    ("linux", text)
}

fn debian_files() -> Vec<PathBuf> {
    linux::FILES.map(|name| linux::folder().join(name)).to_vec()
}

/// The test kernel, told to do this.
fn kernel(name: &'static str, vcpus: u32, words: &str) -> (&'static str, String) {
    let text = format!(
        "[vm]\nname = \"{name}\"\nmode = \"type1\"\nvcpus = {vcpus}\nmemory = \"64M\"\n\
         [vm.type1]\nkernel = \"test-kernel\"\ncmdline = \"{words}\"\n"
    );
    (name, text)
}

fn hello(name: &'static str, unikernel: &str) -> (&'static str, String) {
    let text = format!(
        "[vm]\nname = \"{name}\"\nmode = \"hvt\"\nmemory = \"16M\"\n[vm.hvt]\nunikernel = \"{unikernel}.hvt\"\n"
    );
    (name, text)
}

fn linux_shell(image: &Path) -> Result<()> {
    let module = module("linux-1", &[debian(1)], &debian_files())?;
    let load = "load 5";
    let complaints = format!("echo $(dmesg | grep -cE '{COMPLAINTS}') complaints");
    let typed = [
        (SHELL, "echo $(nproc) processors"),
        (SHELL, "grep LOC: /proc/interrupts"),
        (SHELL, load),
        (SHELL, complaints.as_str()),
        (SHELL, "poweroff -f"),
    ];
    let start = Start::Kernel { image, words: "attach=linux exit", module: Some(&module) };
    let boot = Trial { start, cpus: 1, devices: &[], typed: &typed }.boot()?;
    let parts = ["\n1 processors\n", "LOC:", ALL_RIGHT, "\n0 complaints\n", "Power down"];
    expect(&boot, Some(GOOD), &parts)?;
    ensure!(!boot.text.contains(PROMPT), "nobody was to type there:\n{}", boot.text);
    Ok(())
}

/// What `load` says where every process came to the right results.
const ALL_RIGHT: &str = "\nload: all of it was right\n";

/// Afterwards the guest still answers, and its log has no warning that it does not have on the
/// bare machine, too.
fn linux_under_load(image: &Path) -> Result<()> {
    let module = module("linux-4", &[debian(4)], &debian_files())?;
    let load = format!("load {LOAD}");
    let typed = [
        (SHELL, "echo $(nproc) processors"),
        (SHELL, load.as_str()),
        (SHELL, "echo $((6 * 7)) is an answer"),
        (SHELL, "dmesg -r"),
        (SHELL, "poweroff -f"),
    ];
    let words = &format!("attach=linux exit {GUESTS}");
    let start = Start::Kernel { image, words, module: Some(&module) };
    let boot = Trial { start, cpus: CPUS, devices: &[], typed: &typed }.boot()?;
    let parts = ["\n4 processors\n", ALL_RIGHT, "\n42 is an answer\n", "Power down"];
    expect(&boot, Some(GOOD), &parts)?;
    ensure!(!boot.text.contains(PROMPT), "nobody was to type there:\n{}", boot.text);
    let bare = bare_linux()?;
    let ours = log::warnings(&boot.text);
    let beyond = log::beyond(&ours, &log::warnings(&bare));
    ensure!(beyond.is_empty(), "warnings that the bare machine does not give: {beyond:#?}");
    Ok(())
}

/// The log of the same Linux with the same command line on QEMU's machine itself.
fn bare_linux() -> Result<String> {
    let [kernel, initrd] = linux::FILES.map(|name| linux::folder().join(name));
    let start = Start::Kernel { image: &kernel, words: CMDLINE, module: Some(&initrd) };
    let typed = [(SHELL, "dmesg -r"), (SHELL, "poweroff -f")];
    let boot = Trial { start, cpus: 4, devices: &[], typed: &typed }.boot()?;
    expect(&boot, Some(0), &["<6>[", "Power down"])?;
    Ok(boot.text)
}

fn side_by_side(image: &Path) -> Result<()> {
    let configs =
        [debian(2), hello("one", "hello"), hello("two", "clock"), hello("three", "hello")];
    let mut files = debian_files();
    files.extend(["hello", "clock"].map(|name| paths::unikernels().join(format!("{name}.hvt"))));
    let module = module("side-by-side", &configs, &files)?;
    let words = &format!("start=all attach=linux exit {GUESTS}");
    let start = Start::Kernel { image, words, module: Some(&module) };
    let typed = [(SHELL, "echo $(nproc) processors"), (SHELL, "poweroff -f")];
    let boot = Trial { start, cpus: CPUS, devices: &[], typed: &typed }.boot()?;
    expect(&boot, Some(GOOD), &["\n2 processors\n", "(one): exit status 0", "(two): exit status 0"])
}

/// The disc is in the boot module: its description names nothing else, and the bundle has SeaBIOS.
fn bundled_disc(image: &Path) -> Result<()> {
    let disc = linux_disc()?;
    let name = disc.file_name().context("a disc without a name")?.to_string_lossy();
    let text = format!("[vm]\nname = \"disc\"\nmemory = \"256M\"\nimage = \"{name}\"\n");
    let module = module("disc-bundled", &[("disc", text)], std::slice::from_ref(&disc))?;
    boots_disc(image, &disc, &module, &[])
}

/// Nothing is started: a machine's disks are opened when it is made.
fn shared_discs(image: &Path) -> Result<()> {
    let folder = paths::work("image")?;
    let (disc, disk) = (folder.join("empty.iso"), folder.join("boot.img"));
    let mut bytes = vec![0; 64 << 10];
    bytes[16 * 2048..][..6].copy_from_slice(b"\x01CD001");
    fs::write(&disc, &bytes)?;
    let mut sector = vec![0; 64 << 10];
    (sector[0], sector[510], sector[511]) = (0xeb, 0x55, 0xaa);
    fs::write(&disk, &sector)?;
    let of = |name, image: &str| {
        let text = format!("[vm]\nname = \"{name}\"\nmemory = \"64M\"\nimage = \"{image}\"\n");
        (name, text)
    };
    let configs = [
        of("disc", "empty.iso"),
        of("twin", "empty.iso"),
        of("disk", "boot.img"),
        of("other", "boot.img"),
    ];
    let module = module("shared-discs", &configs, &[disc, disk])?;
    let lines = ["create disc", "create twin", "create disk", "create other", "destroy disk"];
    let typed = [&lines[..], &["create other", "poweroff"]].concat();
    let typed: Vec<_> = typed.into_iter().map(|line| (PROMPT, line)).collect();
    let start = Start::Kernel { image, words: "start=none", module: Some(&module) };
    let boot = Trial { start, cpus: 1, devices: &[], typed: &typed }.boot()?;
    let refused = "other.toml: image boot.img: the file is a disk of another VM";
    expect(&boot, Some(0), &["VM 2 is made", "VM 3 is made", refused, "VM 5 is made"])
}

/// The disc is a disk of the machine, which the guest has whole and may only read.
fn machines_disc(image: &Path) -> Result<()> {
    let disc = linux_disc()?;
    let file = Firmware::Ovmf.file()?;
    let name = file.file_name().context("firmware without a name")?.to_string_lossy();
    let text = format!(
        "[vm]\nname = \"disc\"\nmode = \"type1\"\nmemory = \"256M\"\n\
         [vm.type1]\nfirmware = \"{name}\"\n\
         [[vm.type1.disks]]\npath = \"disk0\"\nread_only = true\n"
    );
    let module = module("disc-of-machine", &[("disc", text)], std::slice::from_ref(&file))?;
    let devices = [
        "-drive".into(),
        format!("if=none,id=disc,format=raw,readonly=on,file={}", disc.display()),
        "-device".into(),
        "virtio-blk-pci,drive=disc".into(),
    ];
    boots_disc(image, &disc, &module, &devices)
}

fn linux_disc() -> Result<PathBuf> {
    let disc = paths::work("image")?.join("linux.iso");
    linux::disc::make(&disc)?;
    Ok(disc)
}

/// Firmware starts GRUB from the disc; GRUB starts Linux, which finds the disc too.
fn boots_disc(image: &Path, disc: &Path, module: &Path, devices: &[String]) -> Result<()> {
    let complaints = format!("echo $(dmesg | grep -cE '{COMPLAINTS}') complaints");
    let typed = [
        (SHELL, "dd if=/dev/vda bs=2048 skip=16 count=1 2>/dev/null | grep -c CD001"),
        (SHELL, "echo $(wc -c </dev/vda) bytes are read, read-only $(cat /sys/block/vda/ro)"),
        (SHELL, "sync /dev/vda && echo all is written"),
        (SHELL, complaints.as_str()),
        (SHELL, "poweroff -f"),
    ];
    let start = Start::Kernel { image, words: "attach=disc exit", module: Some(module) };
    let boot = Trial { start, cpus: 1, devices, typed: &typed }.boot()?;
    let read = format!("\n{} bytes are read, read-only 1\n", fs::metadata(disc)?.len());
    let parts = [
        "GRUB loads Linux",
        "\n1\n",
        &read,
        "\nall is written\n",
        "\n0 complaints\n",
        "Power down",
    ];
    expect(&boot, Some(GOOD), &parts)
}

/// Runs test kernels beside one whose every beat must be good.
fn beside_heartbeat(
    image: &Path,
    name: &str,
    others: &[(&'static str, String)],
    devices: &[String],
    typed: &[(&str, &str)],
    words: &str,
) -> Result<image::Boot> {
    let mut configs = vec![kernel("heart", 1, &format!("heartbeat={BEATS}"))];
    configs.extend_from_slice(others);
    let module = module(name, &configs, &[test_kernel::build()?])?;
    let start = Start::Kernel { image, words, module: Some(&module) };
    let boot = Trial { start, cpus: 1, devices, typed }.boot()?;
    ensure!(!boot.text.contains("BAD"), "the heart's memory was changed:\n{}", boot.text);
    let good = boot.text.matches(" good\n").count();
    ensure!(good == BEATS, "{good} of {BEATS} beats were good:\n{}", boot.text);
    Ok(boot)
}

const BEATS: usize = 20;

/// It has a disk and a network, whose queues it lies about.
fn hostile(image: &Path) -> Result<()> {
    let (name, mut text) = kernel("hostile", 1, "do=all");
    text += "[[vm.type1.disks]]\npath = \"disk0\"\n[[vm.type1.nets]]\ninterface = \"nic0\"\n";
    let disk = paths::work("image")?.join("lied-to.img");
    fs::write(&disk, vec![0; 1 << 20])?;
    let devices = [
        "-drive".into(),
        format!("if=none,id=disk,format=raw,file={}", disk.display()),
        "-device".into(),
        "virtio-blk-pci,drive=disk".into(),
        "-netdev".into(),
        "user,id=nic,restrict=on".into(),
        "-device".into(),
        "virtio-net-pci,romfile=,netdev=nic".into(),
    ];
    let boot =
        beside_heartbeat(image, "hostile", &[(name, text)], &devices, &[], "exit console=off")?;
    let parts = [
        "done ports",
        "2 virtio devices",
        "driver has broken a queue",
        "[hostile] test-kernel: end",
        "(hostile): exit status 0",
    ];
    expect(&boot, Some(GOOD), &parts)
}

fn hostile_processors(image: &Path) -> Result<()> {
    let others = [kernel("hostile", 3, "do=nmi,ipi,chips,modes,self-modify")];
    let boot = beside_heartbeat(image, "hostile-3", &others, &[], &[], "exit console=off")?;
    let parts = ["2 other processors", "[hostile] test-kernel: end", "(hostile): exit status 0"];
    expect(&boot, Some(GOOD), &parts)
}

/// On one CPU: interrupts off for ever, exceptions and interrupts without end.
fn endless(image: &Path) -> Result<()> {
    let others = [
        kernel("spin", 1, "do=spin"),
        kernel("exceptions", 1, "do=exceptions"),
        kernel("nmis", 1, "do=nmi-spin"),
        kernel("ipis", 2, "do=ipi-spin"),
    ];
    let typed = [
        ("(heart): exit status 0", "stop spin"),
        ("(spin): stopped", "stop exceptions"),
        ("(exceptions): stopped", "stop nmis"),
        ("(nmis): stopped", "stop ipis"),
        ("(ipis): stopped", "list"),
        (PROMPT, "stats heart"),
        (PROMPT, "poweroff"),
    ];
    let boot = beside_heartbeat(image, "endless-machines", &others, &[], &typed, "")?;
    // Those that the backend answers itself, too.
    let counted = ["pio ", "page_fault ", "control_register "];
    expect(
        &boot,
        Some(0),
        &[&["[heart] test-kernel: end", "(ipis): stopped"], &counted[..]].concat(),
    )
}
