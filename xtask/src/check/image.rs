//! The bare-metal image in QEMU's emulated machine: it boots, tests itself, fails as it should,
//! and switches the machine off.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::tally::Tally;
use crate::image::{self, Boot, GOOD, GUESTS, PROMPT, Start, Trial, bundle, iso};
use crate::{paths, test_kernel, unikernel};

/// QEMU's status when the image leaves with a failure.
const BAD: i32 = GOOD + 2;
/// A test: its name, and what it does with the image.
pub type Test = (&'static str, fn(&Path) -> Result<()>);

/// Of the image with its self-test.
const SELF_TESTS: [Test; 2] = [
    ("the self-test passes on one CPU", |image| self_test(image, 1)),
    ("the self-test passes on four CPUs", |image| self_test(image, 4)),
];

/// Of the image as it is shipped.
const TESTS: [Test; 19] = [
    ("an exception prints registers and a trace with names", crash),
    ("with nothing to do the machine is switched off", power_off),
    ("a failure can reset the machine", reset),
    ("the console takes commands", console),
    ("a processor that cannot run guests is told once", no_svm),
    ("there is one prompt after a guest's end, and none where the machine ends", prompts),
    ("several unikernels run at once", several),
    ("a VM that cannot be made is a failure, however the others end", missed),
    ("descriptions that are too deep or too long are one error each", bounded),
    ("names of files do not drive the terminal", names),
    ("a guest that never ends leaves others their share and is stopped", endless),
    ("a guest that prints 3 MiB at once leaves others their share and is stopped", loud),
    ("guests have all memory that they were promised, and the console its words", exhausted),
    ("vCPUs run where they are pinned, and nowhere that is not there", pinned),
    ("guests are kept off CPUs, and nonsense is refused", kept_off),
    ("a part of a disk of the machine is a guest's", real_disk),
    ("a guest has an address from the machine's own network", real_network),
    ("a disc boots by the BIOS", |image| disc(image, |disc| Start::DiscByBios(disc))),
    ("a disc boots by UEFI", |image| disc(image, |disc| Start::DiscByUefi(disc))),
];

/// Builds the image and runs its tests, or those whose name contains `filter`.
pub fn boot(filter: Option<&str>) -> Result<Tally> {
    let wanted =
        |tests: &[Test]| tests.iter().any(|test| filter.is_none_or(|f| test.0.contains(f)));
    let mut tally = Tally::default();
    // An image takes minutes to build.
    if wanted(&SELF_TESTS) {
        tally.add(boot_all(&image::build_with_self_test()?, &SELF_TESTS, filter)?);
    }
    if wanted(&TESTS) {
        unikernel::build_examples()?;
        tally.add(boot_all(&image::build()?, &TESTS, filter)?);
    }
    Ok(tally)
}

/// Runs tests of an image, or those whose name contains `filter`.
pub fn boot_all(image: &Path, tests: &[Test], filter: Option<&str>) -> Result<Tally> {
    let mut tally = Tally::default();
    for (name, test) in tests.iter().filter(|test| filter.is_none_or(|f| test.0.contains(f))) {
        tally.tests += 1;
        match test(image) {
            Ok(()) => {
                println!("test {name} ... ok");
                tally.passed += 1;
            }
            Err(error) => {
                println!("test {name} ... FAILED\n{error:#}");
                tally.failed += 1;
                tally.names.push((*name).to_owned());
            }
        }
    }
    Ok(tally)
}

fn self_test(image: &Path, cpus: u32) -> Result<()> {
    let boot = trial(image, cpus, "selftest").boot()?;
    expect(&boot, Some(GOOD), &["selftest: frames: passed", &format!("{cpus} of {cpus} CPUs ran")])
}

fn crash(image: &Path) -> Result<()> {
    let boot = trial(image, 2, "crash").boot()?;
    expect(&boot, Some(BAD), &["invalid opcode (vector 6", "rflags", "thread::begin+0x"])
}

fn power_off(image: &Path) -> Result<()> {
    expect(&trial(image, 2, "console=off").boot()?, Some(0), &["MiB free"])
}

/// QEMU is told to end where the machine would start anew.
fn reset(image: &Path) -> Result<()> {
    let boot = trial(image, 1, "crash panic=reset").boot()?;
    expect(&boot, Some(0), &["invalid opcode"])
}

fn console(image: &Path) -> Result<()> {
    let lines = ["hlep\x08\x08\x08elp", "list", "strat x", "\x10\x10\x10", "modes", "poweroff"];
    let typed = lines.map(|line| (PROMPT, line));
    let boot = Trial { typed: &typed, ..trial(image, 2, "") }.boot()?;
    let parts = [
        "there is no VM",
        "did you mean `start`?",
        "2 of 2 CPUs run",
        "hardware virtual",
        "scaled for guests (tsc_khz): no",
    ];
    expect(&boot, Some(0), &parts)?;
    let helps = boot.text.matches("this list").count();
    ensure!(helps == 2, "`help` and its recall were carried out {helps} times:\n{}", boot.text);
    Ok(())
}

fn prompts(image: &Path) -> Result<()> {
    let module = module("prompts", &[("clock", CLOCK), ("spin", SPIN)])?;
    // The guest that ends had the terminal.
    let start = Start::Kernel { image, words: "start=clock attach=clock", module: Some(&module) };
    let typed = [(PROMPT, "poweroff")];
    let boot = Trial { start, cpus: 1, devices: &[], typed: &typed }.boot()?;
    expect(&boot, Some(0), &["(clock): exit status 0\nhv> poweroff"])?;
    let prompts = boot.text.matches(PROMPT).count();
    ensure!(prompts == 1, "{prompts} prompts:\n{}", boot.text);
    for cpus in [1, 3] {
        let words = &format!("start=spin exit {}", if cpus > 1 { GUESTS } else { "" });
        let start = Start::Kernel { image, words, module: Some(&module) };
        let typed = [(PROMPT, "stop spin")];
        let boot = Trial { start, cpus, devices: &[], typed: &typed }.boot()?;
        expect(&boot, Some(GOOD), &["(spin): stopped\n"])?;
        let rest = boot.text.rsplit("stop spin\n").next().unwrap_or_default();
        ensure!(!rest.contains(PROMPT), "a prompt where the machine ends:\n{}", boot.text);
    }
    Ok(())
}

/// A boot module of the unikernels, these descriptions and a small disk.
fn module(name: &str, configs: &[(&str, &str)]) -> Result<PathBuf> {
    module_with(name, configs, &[])
}

/// The same with further files.
fn module_with(name: &str, configs: &[(&str, &str)], files: &[PathBuf]) -> Result<PathBuf> {
    let folder = paths::work("image")?.join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    for (name, hvt) in configs {
        // Keys of `[vm]` come before a table's; those of `[vm.hvt]` alone may leave its name out.
        let table = if hvt.lines().any(|line| line.starts_with("[vm.")) { "" } else { "[vm.hvt]" };
        let memory = if hvt.contains("memory = ") { "" } else { "memory = \"64M\"" };
        let vm = format!("[vm]\nname = \"{name}\"\n{memory}\n{table}\n{hvt}\n");
        fs::write(folder.join(format!("{name}.toml")), vm)?;
    }
    fs::write(folder.join("disk.img"), vec![0; 256 << 10])?;
    let module = folder.with_extension("cpio");
    let all = [&[folder, paths::unikernels()], files].concat();
    fs::write(&module, bundle::make(&all)?)?;
    Ok(module)
}

const HELLO: &str = "unikernel = \"hello.hvt\"\nargs = [\"from\", \"bare\", \"metal\"]";
const CLOCK: &str = "unikernel = \"clock.hvt\"";
const SPIN: &str = "unikernel = \"hostile.hvt\"\nargs = [\"spin\"]";

fn block(path: &str) -> String {
    let resource = format!("[[vm.hvt.resources]]\ntype = \"block\"\npath = \"{path}\"");
    format!("unikernel = \"block.hvt\"\n{resource}")
}

fn several(image: &Path) -> Result<()> {
    let module =
        module("several", &[("hello", HELLO), ("clock", CLOCK), ("block", &block("disk.img"))])?;
    let words = &format!("exit console=off {GUESTS}");
    let start = Start::Kernel { image, words, module: Some(&module) };
    let boot = Trial { start, cpus: 3, devices: &[], typed: &[] }.boot()?;
    let parts =
        ["[hello] argument 3: metal", "[clock] SUCCESS", "[block] pieces of blocks: refused"];
    expect(&boot, Some(GOOD), &parts)
}

fn missed(image: &Path) -> Result<()> {
    let module = module("missed", &[("hello", HELLO), ("block", &block("nothing.img"))])?;
    let start = Start::Kernel { image, words: "exit console=off", module: Some(&module) };
    let boot = Trial { start, cpus: 1, devices: &[], typed: &[] }.boot()?;
    expect(&boot, Some(BAD), &["block.toml: ", "(hello): exit status 0"])
}

/// The parser has a small stack and a heap whose blocks end at 4 MiB; the others still run.
fn bounded(image: &Path) -> Result<()> {
    let arrays = format!("args = {}", "[".repeat(78));
    let tables = format!("args = {}", "{a=".repeat(60));
    let comment = format!("# {}", "x".repeat(1_000_000));
    let configs =
        [("arrays", &*arrays), ("tables", &*tables), ("comment", &*comment), ("hello", HELLO)];
    let module = module("bounded", &configs)?;
    let start = Start::Kernel { image, words: "exit console=off", module: Some(&module) };
    let boot = Trial { start, cpus: 1, devices: &[], typed: &[] }.boot()?;
    let parts = [
        "arrays.toml: the description is nested too deeply: at most 16 levels are read",
        "tables.toml: the description is nested too deeply: at most 16 levels are read",
        "comment.toml: ",
        "(hello): exit status 0",
    ];
    expect(&boot, Some(BAD), &parts)
}

fn names(image: &Path) -> Result<()> {
    let module = module("names", &[("evil\u{1b}[2J", HELLO)])?;
    let start = Start::Kernel { image, words: "start=none", module: Some(&module) };
    let typed = [(PROMPT, "configs"), (PROMPT, "poweroff")];
    let boot = Trial { start, cpus: 1, devices: &[], typed: &typed }.boot()?;
    expect(&boot, Some(0), &["  evil.[2J\n"])?;
    ensure!(!boot.text.contains("\u{1b}[2J"), "it wipes the screen:\n{}", boot.text);
    Ok(())
}

fn endless(image: &Path) -> Result<()> {
    let module = module("endless", &[("clock", CLOCK), ("spin", SPIN), ("turn", SPIN)])?;
    let start = Start::Kernel { image, words: "", module: Some(&module) };
    let typed = [
        ("(clock): exit status 0", "stop spin"),
        ("(spin): stopped", "stop turn"),
        ("(turn): stopped", "start spin"),
        (PROMPT, "destroy turn"),
        (PROMPT, "stop spin"),
        ("(spin): stopped", "list"),
        (PROMPT, "poweroff"),
    ];
    let boot = Trial { start, cpus: 1, devices: &[], typed: &typed }.boot()?;
    expect(&boot, Some(0), &["[clock] SUCCESS", "spin              hvt     stopped"])
}

/// It would take longer than the other guest does; then what is typed is read.
fn loud(image: &Path) -> Result<()> {
    let loud = "unikernel = \"hostile.hvt\"\nargs = [\"puts-3m\"]";
    let module = module("loud", &[("clock", CLOCK), ("loud", loud)])?;
    let start = Start::Kernel { image, words: "", module: Some(&module) };
    let typed = [("(clock): exit status 0", "stop loud"), ("(loud): stopped", "poweroff")];
    let boot = Trial { start, cpus: 1, devices: &[], typed: &typed }.boot()?;
    expect(&boot, Some(0), &["[clock] SUCCESS"])
}

/// Guests that have all of the machine's memory touch it, sparsely first, while frames wait for one
/// that does not read; then every command is typed.
fn exhausted(image: &Path) -> Result<()> {
    let hostile = |size: &str, program: &str, rest: &str| {
        format!("memory = \"{size}\"\n[vm.hvt]\nunikernel = \"{program}.hvt\"\nargs = {rest}")
    };
    let net = "[\"net-flood\"]\n[[vm.hvt.resources]]\ntype = \"net\"\ninterface = \"lan\"";
    let flood = hostile("4M", "hostile-net", net);
    let spin = hostile("4M", "hostile", "[\"spin\"]");
    let kernel = |kib: u32| format!("memory = \"{kib}K\"\n[vm.type1]\nkernel = \"test-kernel\"");
    let mut configs: Vec<(String, String)> =
        ["deaf", "flood", "later"].map(|name| (name.into(), flood.clone())).into();
    configs.extend([("spin".into(), spin), ("kept".into(), kernel(12 << 10))]);
    // Halves of what is left, until there is nothing: some of them are refused.
    let halves = [256, 128, 64, 32, 16, 8, 4].map(|mib| {
        let name = format!("{mib}M");
        (name.clone(), hostile(&name, "hostile", "[\"touch-all\"]"))
    });
    configs.extend(halves);
    // Then, in place of one, the largest that is no larger than what is left.
    let last = (48..64).rev().map(|quarter| (format!("{quarter}q"), kernel(quarter * 256)));
    configs.extend(last);
    let named: Vec<_> = configs.iter().map(|(name, text)| (&name[..], &text[..])).collect();
    let module = module_with("exhausted", &named, &[test_kernel::build()?])?;

    let mut typed: Vec<(&str, String)> = Vec::new();
    for (name, _) in &configs {
        if name == "63q" {
            typed.push((PROMPT, "destroy kept".into()));
        }
        typed.push((PROMPT, format!("create {name}")));
    }
    let mut type_in = |after, line: &str| typed.push((after, line.into()));
    type_in(PROMPT, "start spin");
    type_in("must be runs-on", "start 256M");
    type_in("(256M): exit status 0", "start 128M");
    type_in("(128M): exit status 0", "start 64M");
    type_in("(64M): exit status 0", "start flood");
    type_in("(flood): exit status 0", "start 32M");
    for line in ["start 16M", "start 8M", "start 4M"] {
        type_in(PROMPT, line);
    }
    for line in ["help", "list", "configs", "create 4M", "strat", "start \t\x15", "start later"] {
        type_in(PROMPT, line);
    }
    type_in("(later): exit status 0", "attach spin");
    type_in("Ctrl-] comes back", "\x1d");
    let lines =
        ["stats", "stats spin", "modes", "log debug", "stop spin", "start spin", "stop spin"];
    for line in lines {
        type_in(PROMPT, line);
    }
    for line in ["create 256M", "destroy 256M", "create 256M", "start 256M"] {
        type_in(PROMPT, line);
    }
    type_in("(256M): exit status 0", "poweroff");

    let start = Start::Kernel { image, words: "start=none", module: Some(&module) };
    let typed: Vec<_> = typed.iter().map(|(after, line)| (*after, &line[..])).collect();
    let boot = Trial { start, cpus: 1, devices: &[], typed: &typed }.boot()?;
    let parts = [
        "[256M] touched 126 pages",
        "48q.toml: this machine has not enough free memory",
        "did you mean `start`?",
        "hardware virtual",
        "hypercalls: puts ",
        "(spin): stopped",
    ];
    expect(&boot, Some(0), &parts)?;
    ensure!(!boot.text.contains("report it"), "a guest lacked memory:\n{}", boot.text);
    Ok(())
}

/// All on the second CPU, though the first has nothing to do.
fn pinned(image: &Path) -> Result<()> {
    let on = |cpu: u32| format!("cpus = [{cpu}]\n[vm.hvt]\n{SPIN}");
    let (one, none) = (on(1), on(2));
    let module = module("pinned", &[("a", &one), ("b", &one), ("c", &one), ("none", &none)])?;
    let start = Start::Kernel { image, words: "", module: Some(&module) };
    // Not before one of them has made a hypercall, and been counted.
    let said = "[c] spin: must be runs-on";
    let typed = [(said, "list"), (PROMPT, "stats"), (PROMPT, "stats"), (PROMPT, "poweroff")];
    let boot = Trial { start, cpus: 2, devices: &[], typed: &typed }.boot()?;
    let refused = "none.toml: `cpus` names CPU 2, which is not there: this machine has 0 to 1\n";
    let counted = "hypercalls: puts ";
    let causes = ["hypercall ", "interrupt ", "page_fault "];
    expect(&boot, Some(0), &[&[refused, "1 vCPU on 1  ", counted], &causes[..]].concat())?;
    let seen = boot.text.matches("vCPU 0: CPU 1").count();
    ensure!(seen == 6, "{seen} of 6 times a guest was on its CPU:\n{}", boot.text);
    Ok(())
}

fn no_svm(image: &Path) -> Result<()> {
    let module = module("no-svm", &[("a", SPIN), ("b", SPIN)])?;
    let devices = ["-cpu".into(), "max,-svm".into()];
    let boot = |words, typed: &[_]| {
        let start = Start::Kernel { image, words, module: Some(&module) };
        Trial { start, cpus: 1, devices: &devices, typed }.boot()
    };
    let why = "no guests can run here: ";
    let exits = boot("exit", &[])?;
    expect(&exits, Some(BAD), &[why, "SVM"])?;
    ensure!(exits.text.matches("no guests").count() == 1, "more than once:\n{}", exits.text);
    let typed = [(PROMPT, "create a"), (PROMPT, "poweroff")];
    let asked = boot("", &typed)?;
    ensure!(asked.text.matches(why).count() == 2, "not when asked:\n{}", asked.text);
    ensure!(!asked.text.contains("no backend"), "the build is blamed:\n{}", asked.text);
    Ok(())
}

/// Four that never end, on two CPUs of three; pinned ones and words that cannot be had.
fn kept_off(image: &Path) -> Result<()> {
    let pinned = |cpu: u32| format!("cpus = [{cpu}]\n[vm.hvt]\n{SPIN}");
    let (kept, none) = (pinned(0), pinned(3));
    let spin = ["a", "b", "c", "d"].map(|name| (name, SPIN));
    let configs = [&spin[..], &[("kept", &kept), ("none", &none)]].concat();
    let module = module("kept-off", &configs)?;
    let boot = |words, typed: &[_]| {
        let start = Start::Kernel { image, words, module: Some(&module) };
        Trial { start, cpus: 3, devices: &[], typed }.boot()
    };
    let mut typed = ["stats", "stats", "stats", "modes", "poweroff"].map(|line| (PROMPT, line));
    // Not before all of them have run.
    typed[0].0 = "[d] spin: must be runs-on";
    let several = boot(GUESTS, &typed)?;
    let parts = [
        "kept.toml: `cpus` names CPU 0, which is kept from guests: the image was started with \
         guest-cpus=1-2\n",
        "none.toml: `cpus` names CPU 3, which is not there: this machine has 0 to 2\n",
        "guests run on CPUs 1-2\n",
    ];
    expect(&several, Some(0), &parts)?;
    let seen = |cpu: u32| several.text.matches(&format!("vCPU 0: CPU {cpu}")).count();
    let places = (seen(0), seen(1) > 0, seen(2) > 0, seen(1) + seen(2));
    ensure!(places == (0, true, true, 12), "guests ran elsewhere:\n{}", several.text);
    for (words, why) in [
        (
            "exit guest-cpus=1-3",
            "guest-cpus names CPU 3, which is not there: this machine has 0 to 2\n",
        ),
        ("exit guest-cpus=all", "guest-cpus=all names no CPUs: write their numbers, "),
    ] {
        let refused = boot(words, &[])?;
        expect(&refused, Some(BAD), &[why])?;
        ensure!(refused.text.matches("guest-cpus").count() == 1, "twice:\n{}", refused.text);
    }
    Ok(())
}

fn real_disk(image: &Path) -> Result<()> {
    let module = module("real-disk", &[("block", &block("disk0:1M+256K"))])?;
    let disk = paths::work("image")?.join("disk.raw");
    fs::write(&disk, vec![0x5a; 2 << 20])?;
    let devices = [
        "-drive".into(),
        format!("if=none,id=disk,format=raw,file={}", disk.display()),
        "-device".into(),
        "virtio-blk-pci,drive=disk".into(),
    ];
    let words = &format!("exit console=off {GUESTS}");
    let start = Start::Kernel { image, words, module: Some(&module) };
    let boot = Trial { start, cpus: 2, devices: &devices, typed: &[] }.boot()?;
    expect(&boot, Some(GOOD), &["disk0: 2048 KiB", "[block] storage: 262144 bytes", "SUCCESS"])?;
    let bytes = fs::read(&disk)?;
    let untouched = |part: &[u8]| part.iter().all(|byte| *byte == 0x5a);
    let (start, end) = (1 << 20, (1 << 20) + (256 << 10));
    ensure!(untouched(&bytes[..start]) && untouched(&bytes[end..]), "it wrote beyond its part");
    ensure!(!untouched(&bytes[start..end]), "it wrote nothing to its part");
    Ok(())
}

fn real_network(image: &Path) -> Result<()> {
    let net = "[[vm.hvt.resources]]\ntype = \"net\"\ninterface = \"nic0\"";
    let web = format!("unikernel = \"net.hvt\"\nargs = [\"--dhcp\"]\n{net}");
    let module = module("real-network", &[("web", &web)])?;
    let devices =
        ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="].map(Into::into);
    let start = Start::Kernel { image, words: GUESTS, module: Some(&module) };
    // QEMU's own network gives this address.
    let typed = [("ready: 10.0.2.15/24", "stop web"), ("(web): stopped", "poweroff")];
    let boot = Trial { start, cpus: 2, devices: &devices, typed: &typed }.boot()?;
    expect(&boot, Some(0), &["nic0: 52:54:00", "(web): stopped"])
}

/// The boot module is there, too: its one description is listed.
fn disc(image: &Path, start: fn(&Path) -> Start<'_>) -> Result<()> {
    let folder = paths::work("image")?;
    let config = folder.join("listed.toml");
    fs::write(&config, "[vm]\nname = \"listed\"\nimage = \"listed.hvt\"\n")?;
    let disc = folder.join("test.iso");
    iso::make(image, Some(&bundle::make(&[config])?), "start=none log=debug", &disc)?;
    let typed = ["configs", "modes", "poweroff"].map(|line| (PROMPT, line));
    let boot = Trial { start: start(&disc), cpus: 2, devices: &[], typed: &typed }.boot()?;
    expect(&boot, Some(0), &["cycle counter", "  listed", "of 2 CPUs run"])
}

fn trial<'a>(image: &'a Path, cpus: u32, words: &'a str) -> Trial<'a> {
    let start = Start::Kernel { image, words, module: None };
    Trial { start, cpus, devices: &[], typed: &[] }
}

pub fn expect(boot: &Boot, status: Option<i32>, parts: &[&str]) -> Result<()> {
    let text = &boot.text;
    for part in parts {
        ensure!(text.contains(part), "it did not print \"{part}\":\n{text}");
    }
    ensure!(boot.status == status, "status {:?}, not {status:?}:\n{text}", boot.status);
    Ok(())
}
