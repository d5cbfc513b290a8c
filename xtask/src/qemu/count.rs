//! Counting instructions: builds the QEMU plugin of `xtask/icount/count.c` and reads what it
//! wrote; `xtask/icount/mark.c` is the program that puts a marker before and after a command.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cc;

/// Executed instructions since power-on. *Host* and *guest* are outside and inside a VMRUN;
/// *kernel* and *user* are the upper and the lower half of the address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Host, upper half.
    pub host_kernel: u64,
    /// Host, lower half.
    pub host_user: u64,
    /// Guest, upper half.
    pub guest_kernel: u64,
    /// Guest, lower half.
    pub guest_user: u64,
    /// VMRUN instructions.
    pub vmruns: u64,
}

impl Count {
    /// What was executed between two counts.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            host_kernel: self.host_kernel - earlier.host_kernel,
            host_user: self.host_user - earlier.host_user,
            guest_kernel: self.guest_kernel - earlier.guest_kernel,
            guest_user: self.guest_user - earlier.guest_user,
            vmruns: self.vmruns - earlier.vmruns,
        }
    }

    /// All instructions.
    pub fn total(self) -> u64 {
        self.host_kernel + self.host_user + self.guest_kernel + self.guest_user
    }

    /// Reads a line of five numbers.
    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
        let mut next = || numbers.next()?;
        Some(Self {
            host_kernel: next()?,
            host_user: next()?,
            guest_kernel: next()?,
            guest_user: next()?,
            vmruns: next()?,
        })
    }
}

/// The value of QEMU's `-plugin` that makes it write counts to `file`.
pub fn plugin_option(file: &Path) -> Result<String> {
    let plugin = cc::compile("icount/count.c", "count.so", &["-shared", "-fPIC"])?;
    Ok(format!("{},counts={}", plugin.display(), file.display()))
}

/// The same, with a count just before the first VMRUN too.
pub fn plugin_option_with_vmrun(file: &Path) -> Result<String> {
    Ok(format!("{},vmrun=first", plugin_option(file)?))
}

/// The program `mark COMMAND [ARGUMENT]...`: a marker just before COMMAND (a path) is executed
/// and one after it has ended; its status is the command's.
pub fn marker() -> Result<PathBuf> {
    cc::compile("icount/mark.c", "mark", &cc::FREESTANDING)
}

/// The counts the plugin wrote, one a marker and one at the end.
pub fn read(file: &Path) -> Result<Vec<Count>> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("QEMU's plugin wrote no counts to {}", file.display()))?;
    text.lines()
        .map(|line| Count::parse(line).with_context(|| format!("no counts: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn counts_are_read_and_subtracted() {
        let early = Count::parse("1 2 3 4 5").unwrap();
        let late = Count::parse("11 22 33 44 55").unwrap();
        let between = late.since(early);
        assert_eq!((between.total(), between.vmruns), (100, 50));
        assert_eq!(Count::parse("1 2 3 4"), None);
    }
}
