//! Why a device did not do what it was asked: `solo5_result_t` with the cases that the bindings
//! find out themselves.

use core::fmt;

/// What [`Error`] spoils.
pub type Result<T> = core::result::Result<T, Error>;

/// Why a device did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The manifest has no device of this kind with this name.
    NoSuchDevice,
    /// Nothing to read yet: call [`crate::poll::wait`] and try again.
    WouldBlock,
    /// An argument is wrong: beyond the device's end, not a multiple of its block size, too long.
    InvalidArgument,
    /// The host failed.
    Unspecified,
}

impl Error {
    /// What the `ret` of a hypercall means.
    pub(crate) fn check(ret: i32) -> Result<()> {
        match ret {
            0 => Ok(()),
            1 => Err(Self::WouldBlock),
            2 => Err(Self::InvalidArgument),
            _ => Err(Self::Unspecified),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchDevice => "no such device: name it in manifest!",
            Self::WouldBlock => "nothing to read yet: poll and try again",
            Self::InvalidArgument => "invalid argument: check offset, length and alignment",
            Self::Unspecified => "the host failed: see what the tender printed",
        })
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_those_of_solo5() {
        assert_eq!(Error::check(0), Ok(()));
        assert_eq!(Error::check(1), Err(Error::WouldBlock));
        assert_eq!(Error::check(2), Err(Error::InvalidArgument));
        assert_eq!(Error::check(3), Err(Error::Unspecified));
        assert_eq!(Error::check(-1), Err(Error::Unspecified));
    }
}
