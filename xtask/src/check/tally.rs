//! Counting what passed, failed and was skipped, as libtest's closing lines tell it.
//!
//! libtest knows no test that finds out while it runs that it cannot test anything here. Such a
//! test prints a line `skipped: NAME: WHY` past the harness and returns; libtest counts it as
//! passed, and [`Tally::read`] counts it as skipped.

use std::fmt;

/// What a test prints before its name and the reason if it does not test anything here.
const SKIPPED: &str = "skipped: ";

/// Outcomes of checks and tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ended well.
    pub passed: u64,
    /// Did not.
    pub failed: u64,
    /// Were not run.
    pub skipped: u64,
    /// Of those run, the tests proper: a build or a lint is none.
    pub tests: u64,
    /// Names of those that failed.
    pub names: Vec<String>,
    /// Those that were skipped, with the reason: `NAME: WHY`.
    pub reasons: Vec<String>,
    /// Skips of the test program that is running, whose closing line counts them as passed.
    pending: Vec<String>,
}

impl Tally {
    /// One check without tests of its own that ended well.
    pub fn success() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    /// One check that did not.
    pub fn failure() -> Self {
        Self { failed: 1, ..Self::default() }
    }

    /// One check that cannot run here, and why.
    pub fn skip(why: &str) -> Self {
        Self { skipped: 1, reasons: vec![why.to_owned()], ..Self::default() }
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.tests += other.tests;
        self.names.extend(other.names);
        self.reasons.extend(other.reasons);
    }

    /// Adds what a line of a test program says: `test NAME ... FAILED`, `skipped: NAME: WHY`, or
    /// its closing line, `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    pub fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            self.names.push(name.to_owned());
        }
        if let Some(skip) = skip_in(line)
            && !self.pending.iter().any(|other| name(other) == name(skip))
        {
            self.pending.push(skip.to_owned());
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.close(counts);
        }
    }

    /// Adds the counts of a test program's closing line.
    fn close(&mut self, counts: &str) {
        let count = |word: &str| {
            let before = counts.split_once(word)?.0.trim_end();
            before.rsplit([' ', ';']).next()?.parse::<u64>().ok()
        };
        let (Some(passed), Some(failed)) = (count("passed"), count("failed")) else {
            return;
        };
        let names = &self.names;
        let mut reasons = std::mem::take(&mut self.pending);
        reasons.retain(|skip| !names.iter().any(|failed| is_test(failed, name(skip))));
        let returned = passed.min(reasons.len() as u64);
        let skipped = count("ignored").unwrap_or(0) + returned;
        let (passed, tests) = (passed - returned, passed - returned + failed);
        self.add(Self { passed, failed, skipped, tests, reasons, ..Self::default() });
    }

    /// The exit status: 0 if nothing failed and at least one test ran, else 1.
    pub fn status(&self) -> i32 {
        i32::from(self.failed > 0 || self.tests == 0)
    }

    /// What the tests of one run come to: a run that did not end well without saying which test
    /// failed (it did not build, it was killed) is a failure too.
    pub fn of_run(self, succeeded: bool) -> Self {
        let silent = !succeeded && self.failed == 0;
        Self { failed: self.failed + u64::from(silent), ..self }
    }
}

/// What follows the mark, at the start of a line or behind a test's name, which libtest prints
/// first where it runs one test at a time.
fn skip_in(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("test ") {
        Some(test) => test.split_once(" ... ")?.1,
        None => line,
    };
    line.strip_prefix(SKIPPED)
}

/// The name in `NAME: WHY`.
fn name(skip: &str) -> &str {
    skip.split_once(": ").map_or(skip, |(name, _)| name)
}

/// Whether `path` (`module::NAME`) is the test called `name`.
fn is_test(path: &str, name: &str) -> bool {
    path.rsplit("::").next() == Some(name)
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn closing_lines_are_summed_and_other_lines_are_not() {
        let mut tally = Tally::default();
        tally.read("test memory::wraps ... ok");
        tally.read("test memory::overlap ... FAILED");
        tally.read("test result: ok. 13 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out");
        tally.read("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured");
        assert_eq!((tally.passed, tally.failed, tally.skipped, tally.tests), (17, 2, 1, 19));
        assert_eq!(tally.names, ["memory::overlap"]);
        assert_eq!(tally.to_string(), "17 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_says_so_is_skipped_and_not_passed() {
        let mut tally = Tally::default();
        tally.read("skipped: on_kvm: no KVM here: really");
        tally.read("skipped: on_kvm: said twice");
        tally.read("test as_root ... skipped: as_root: needs root");
        tally.read("skipped: both: but it fails later");
        tally.read("test net::both ... FAILED");
        tally.read("a guest prints skipped: nothing: at all");
        tally.read("test result: FAILED. 5 passed; 1 failed; 1 ignored; 0 measured");
        assert_eq!((tally.passed, tally.failed, tally.skipped, tally.tests), (3, 1, 3, 4));
        assert_eq!(tally.reasons, ["on_kvm: no KVM here: really", "as_root: needs root"]);
        tally.read("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured");
        assert_eq!((tally.passed, tally.skipped), (5, 3), "the next program starts anew");
    }

    #[test]
    fn only_skips_are_no_tests() {
        let mut tally = Tally::default();
        tally.read("skipped: one: no");
        tally.read("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured");
        assert_eq!((tally.passed, tally.skipped, tally.tests), (0, 1, 0));
        assert_eq!(Tally::skip("no Miri").reasons, ["no Miri"]);
    }

    #[test]
    fn the_status_is_bad_if_anything_failed_or_no_test_ran() {
        let after = |line: &str| {
            let mut tally = Tally::success();
            tally.read(line);
            tally.status()
        };
        assert_eq!(after("test result: ok. 1 passed; 0 failed; 0 ignored"), 0);
        assert_eq!(after("test result: FAILED. 9 passed; 1 failed; 0 ignored"), 1);
        assert_eq!(after("test result: ok. 0 passed; 0 failed; 3 ignored"), 1);
        assert_eq!(Tally::success().of_run(false).status(), 1);
    }

    #[test]
    fn a_run_that_dies_silently_is_a_failure() {
        assert_eq!(Tally::default().of_run(false).failed, 1);
        assert_eq!(Tally { failed: 3, ..Tally::default() }.of_run(false).failed, 3);
        assert_eq!(Tally::default().of_run(true).failed, 0);
    }
}
