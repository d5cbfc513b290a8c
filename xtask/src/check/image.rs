//! The bare-metal image in QEMU's emulated machine: it boots, tests itself, fails as it should,
//! and switches the machine off.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::tally::Tally;
use crate::image::{self, Boot, GOOD, Start, Trial, bundle, iso};
use crate::paths;

/// QEMU's status when the image leaves with a failure.
const BAD: i32 = GOOD + 2;
/// A test: its name, and what it does with the image.
type Test = (&'static str, fn(&Path) -> Result<()>);

const TESTS: [Test; 8] = [
    ("the self-test passes on one CPU", |image| self_test(image, 1)),
    ("the self-test passes on four CPUs", |image| self_test(image, 4)),
    ("an exception prints registers and a trace with names", crash),
    ("with nothing to do the machine is switched off", power_off),
    ("a failure can reset the machine", reset),
    ("the console takes commands", console),
    ("a disc boots by the BIOS", |image| disc(image, |disc| Start::DiscByBios(disc))),
    ("a disc boots by UEFI", |image| disc(image, |disc| Start::DiscByUefi(disc))),
];

/// Builds the image and runs its tests, or those whose name contains `filter`.
pub fn boot(filter: Option<&str>) -> Result<Tally> {
    let image = image::build()?;
    let mut tally = Tally::default();
    for (name, test) in TESTS.iter().filter(|test| filter.is_none_or(|f| test.0.contains(f))) {
        tally.tests += 1;
        match test(&image) {
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
    let typed = ["hlep\x08\x08\x08elp", "list", "strat x", "\x10\x10\x10", "modes", "poweroff"];
    let boot = Trial { typed: &typed, ..trial(image, 2, "") }.boot()?;
    let parts = ["there is no VM", "did you mean `start`?", "2 of 2 CPUs run", "hardware virtual"];
    expect(&boot, Some(0), &parts)?;
    let helps = boot.text.matches("this list").count();
    ensure!(helps == 2, "`help` and its recall were carried out {helps} times:\n{}", boot.text);
    Ok(())
}

/// The boot module is there, too: its one description is listed.
fn disc(image: &Path, start: fn(&Path) -> Start<'_>) -> Result<()> {
    let folder = paths::work("image")?;
    let config = folder.join("listed.toml");
    fs::write(&config, "[vm]\nname = \"listed\"\nimage = \"listed.hvt\"\n")?;
    let disc = folder.join("test.iso");
    iso::make(image, Some(&bundle::make(&[config])?), "start=none log=debug", &disc)?;
    let typed = ["configs", "modes", "poweroff"];
    let boot = Trial { start: start(&disc), cpus: 2, typed: &typed }.boot()?;
    expect(&boot, Some(0), &["cycle counter", "  listed", "of 2 CPUs run"])
}

fn trial<'a>(image: &'a Path, cpus: u32, words: &'a str) -> Trial<'a> {
    let start = Start::Kernel { image, words, module: None };
    Trial { start, cpus, typed: &[] }
}

fn expect(boot: &Boot, status: Option<i32>, parts: &[&str]) -> Result<()> {
    let text = &boot.text;
    for part in parts {
        ensure!(text.contains(part), "it did not print \"{part}\":\n{text}");
    }
    ensure!(boot.status == status, "status {:?}, not {status:?}:\n{text}", boot.status);
    Ok(())
}
