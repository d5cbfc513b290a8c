//! The system tests with the KVM backend, and that backend's own tests: the same test programs,
//! inside a test machine, where KVM has (emulated) hardware to run on.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::suites::SYSTEM;
use super::tally::Tally;
use crate::qemu::Machine;
use crate::setup::programs;
use crate::{linux, process, tender, test_kernel, vm};

/// The package of the backend.
const BACKEND: &str = "backend-kvm";

/// Test programs that run whole machines, by the beginning of their names: each has a test machine
/// of its own.
const WHOLE_MACHINES: [&str; 2] = ["linux", "type1"];

/// Why whole machines are left out unless they are asked for.
const LEFT_OUT: &str = "whole machines on KVM: QEMU's emulated SVM corrupts the kernel of the test \
                        machine under them (docs/testing.md); --nested tries them";

/// Builds the tests, boots a machine with them and runs them there; those with whole machines only
/// if `nested`.
pub fn system(filter: Option<&str>, nested: bool) -> Result<Tally> {
    let tests = test_programs()?;
    ensure!(!tests.is_empty(), "the packages {SYSTEM} and {BACKEND} have no test program");
    let (alone, together): (Vec<_>, Vec<_>) = tests.into_iter().partition(|test| is_alone(test));
    let mut tally = in_machine(&together, filter)?;
    if !nested {
        tally.add(Tally::skip(LEFT_OUT));
        return Ok(tally);
    }
    for test in alone {
        tally.add(in_machine(&[test], filter)?);
    }
    Ok(tally)
}

fn is_alone(test: &Path) -> bool {
    let name = test.file_name().unwrap_or_default().to_string_lossy();
    WHOLE_MACHINES.iter().any(|start| name.starts_with(start))
}

/// Runs test programs in a machine; an error if that does not get to their end.
fn in_machine(tests: &[PathBuf], filter: Option<&str>) -> Result<Tally> {
    let mut files = vm::own_files()?;
    files.add_file("/test-kernel", &test_kernel::build()?)?;
    for program in [programs::PASST, programs::IP, programs::PING] {
        files.add_program(&format!("/opt/bin/{}", program.name), &program.get()?)?;
    }
    for name in linux::FILES {
        files.add_file(&format!("/linux/{name}"), &linux::folder().join(name))?;
    }
    let gdb = programs::small_gdb()?;
    files.add_fetched("/opt/bin/gdb", &gdb.program, &gdb.libraries)?;
    for (number, test) in (1..).zip(tests) {
        files.add_program(&format!("/tests/{number}"), test)?;
    }
    process::say("booting the test machine");
    let cpus = if tests.iter().any(|test| is_alone(test)) { 1 } else { Machine::default().cpus };
    let machine = Machine { name: "system-tests".to_owned(), cpus, ..Machine::default() };
    let mut tally = Tally::default();
    let outcome = machine.run(files, &script(filter), |line| {
        println!("{line}");
        tally.read(line);
    })?;
    Ok(tally.of_run(outcome.status == 0))
}

fn script(filter: Option<&str>) -> String {
    let filter = filter.map(|text| text.replace('\'', "'\\''")).unwrap_or_default();
    format!(
        "export REDOX_HVT=/opt/bin/redox-hvt UNIKERNELS=/unikernels BACKEND=kvm\n\
         export REDOX_VM=/opt/bin/redox-vm LINUX=/linux TEST_KERNEL=/test-kernel\n\
         export REDOX_REQUIRE_KVM=1\n\
         failed=0\n\
         for program in /tests/*; do \"$program\" '{filter}' || failed=1; done\n\
         exit $failed\n"
    )
}

/// The test programs of the package, static where this machine can link so.
fn test_programs() -> Result<Vec<PathBuf>> {
    let mut command = process::cargo();
    command.args(["test", "--quiet", "--no-run", "--message-format=json"]);
    command.args(["--package", SYSTEM, "--package", BACKEND]);
    tender::link_statically(&mut command)?;
    let mut found = Vec::new();
    let built = process::stream(&mut command, |line| found.extend(test_program(line)))?;
    ensure!(built, "the tests do not build");
    Ok(found)
}

/// The executable in one of cargo's messages, if that is about a test program.
fn test_program(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if !message["profile"]["test"].as_bool()? {
        return None;
    }
    message["executable"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::{is_alone, script, test_program};
    use std::path::Path;

    #[test]
    fn only_test_programs_are_taken() {
        let program =
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/a"}"#;
        let library =
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":null}"#;
        assert_eq!(test_program(program).unwrap().to_str(), Some("/t/a"));
        assert_eq!(test_program(library), None);
        assert_eq!(test_program(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn whole_machines_are_tested_alone() {
        assert!(is_alone(Path::new("/t/linux-0123")) && is_alone(Path::new("/t/type1_hostile-4")));
        assert!(!is_alone(Path::new("/t/hello-5")));
    }

    #[test]
    fn a_filter_with_a_quote_stays_one_word() {
        assert!(script(Some("it's")).contains(r#""$program" 'it'\''s' ||"#));
    }
}
