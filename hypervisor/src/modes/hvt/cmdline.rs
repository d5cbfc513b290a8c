//! A guest's command line: its arguments joined by single spaces, as a C string.

use super::solo5_abi::CMDLINE_SIZE;
use alloc::vec::Vec;

/// A command line that fits, without its terminator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine(Vec<u8>);

/// Why arguments do not make a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// Longer than the ABI allows.
    #[error(
        "Guest command line too long (max={max} characters); shorten the arguments",
        max = CMDLINE_SIZE - 1
    )]
    TooLong,
    /// A C string ends at its first NUL.
    #[error("argument {0} of the guest contains a NUL byte; remove it")]
    Nul(usize),
}

impl CommandLine {
    /// Joins arguments, which may be any bytes but NUL.
    ///
    /// # Errors
    /// [`CmdlineError`].
    pub fn new<A: AsRef<[u8]>>(args: impl IntoIterator<Item = A>) -> Result<Self, CmdlineError> {
        let mut line = Vec::new();
        for (i, arg) in args.into_iter().enumerate() {
            let arg = arg.as_ref();
            if arg.contains(&0) {
                return Err(CmdlineError::Nul(i + 1));
            }
            if i > 0 {
                line.push(b' ');
            }
            if line.len() + arg.len() >= CMDLINE_SIZE {
                return Err(CmdlineError::TooLong);
            }
            line.extend_from_slice(arg);
        }
        Ok(Self(line))
    }

    /// The line, without a terminator; at most [`CMDLINE_SIZE`] - 1 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn arguments_are_joined_by_single_spaces() {
        let line = |args: &[&str]| CommandLine::new(args).unwrap().as_bytes().to_vec();
        assert_eq!(line(&[]), b"");
        assert_eq!(line(&["a"]), b"a");
        assert_eq!(line(&["a", "", "b c"]), b"a  b c");
        assert_eq!(line(&["", ""]), b" ");
    }

    #[test]
    fn the_limit_counts_spaces_but_not_the_terminator() {
        let (most, one) = (vec![b'x'; CMDLINE_SIZE - 1], vec![b'x'; CMDLINE_SIZE - 2]);
        assert_eq!(CommandLine::new([&most]).unwrap().as_bytes(), &most);
        assert_eq!(CommandLine::new([&most, &vec![]]), Err(CmdlineError::TooLong));
        assert_eq!(CommandLine::new([&one, &vec![]]).unwrap().as_bytes().len(), CMDLINE_SIZE - 1);
        assert_eq!(CommandLine::new([&one, &vec![b'y']]), Err(CmdlineError::TooLong));
        assert_eq!(CommandLine::new([vec![b'x'; CMDLINE_SIZE]]), Err(CmdlineError::TooLong));
    }

    #[test]
    fn a_nul_is_refused_by_the_number_of_its_argument() {
        assert_eq!(CommandLine::new(["a", "b\0"]), Err(CmdlineError::Nul(2)));
    }
}
