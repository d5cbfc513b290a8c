//! The system tests with the KVM backend, and that backend's own tests: the same test programs,
//! inside a test machine, where KVM has (emulated) hardware to run on.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::suites::SYSTEM;
use super::tally::Tally;
use crate::qemu::Machine;
use crate::qemu::initramfs::Programs;
use crate::setup::programs;
use crate::{linux, process, tender, test_kernel, vm};

/// The package of the backend.
const BACKEND: &str = "backend-kvm";

/// Builds the tests, boots a machine with them and runs them there.
pub fn system(filter: Option<&str>) -> Result<Tally> {
    let tests = test_programs()?;
    ensure!(!tests.is_empty(), "the packages {SYSTEM} and {BACKEND} have no test program");
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
    for (number, test) in (1..).zip(&tests) {
        files.add_program(&format!("/tests/{number}"), test)?;
    }
    process::say("booting the test machine");
    let machine = Machine { name: "system-tests".to_owned(), ..Machine::default() };
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
    command.args(["test", "--quiet", "--no-run"]);
    // The compiler's own words stay on standard error.
    command.arg("--message-format=json-render-diagnostics");
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
    use super::{script, test_program};

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
    fn a_filter_with_a_quote_stays_one_word() {
        assert!(script(Some("it's")).contains(r#""$program" 'it'\''s' ||"#));
    }
}
