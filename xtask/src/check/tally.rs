//! Counting what passed, failed and was skipped, as libtest's closing lines tell it.

use std::fmt;

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

    /// One check that cannot run here.
    pub fn skip() -> Self {
        Self { skipped: 1, ..Self::default() }
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.tests += other.tests;
        self.names.extend(other.names);
    }

    /// Adds what a line of a test program says: `test NAME ... FAILED`, or its closing line,
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    pub fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            self.names.push(name.to_owned());
        }
        let Some((_, counts)) = line.split_once("test result: ") else {
            return;
        };
        let count = |word: &str| {
            let before = counts.split_once(word)?.0.trim_end();
            before.rsplit([' ', ';']).next()?.parse::<u64>().ok()
        };
        let (Some(passed), Some(failed)) = (count("passed"), count("failed")) else {
            return;
        };
        let skipped = count("ignored").unwrap_or(0);
        let tests = passed + failed;
        self.add(Self { passed, failed, skipped, tests, ..Self::default() });
    }

    /// What the tests of one run come to: a run that did not end well without saying which test
    /// failed (it did not build, it was killed) is a failure too.
    pub fn of_run(self, succeeded: bool) -> Self {
        let silent = !succeeded && self.failed == 0;
        Self { failed: self.failed + u64::from(silent), ..self }
    }
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
    fn a_run_that_dies_silently_is_a_failure() {
        assert_eq!(Tally::default().of_run(false).failed, 1);
        assert_eq!(Tally { failed: 3, ..Tally::default() }.of_run(false).failed, 3);
        assert_eq!(Tally::default().of_run(true).failed, 0);
    }
}
