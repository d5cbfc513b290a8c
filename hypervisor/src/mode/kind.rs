//! The names of the modes.

use crate::config::nearest;
use core::fmt;
use core::str::FromStr;

/// What kind of machine a guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModeKind {
    /// Full virtualization: unmodified operating systems.
    Type1,
    /// Paravirtualization: guests with VirtIO drivers.
    VirtIO,
    /// Solo5's hardware virtualized tender: unikernels.
    Hvt,
}

impl ModeKind {
    /// The name of one of its guests' hypercalls, if it answers that.
    pub fn call_name(self, number: u64) -> Option<&'static str> {
        use crate::modes::{hvt::solo5_abi::Hypercall, type1::paravirt};
        match self {
            Self::Hvt => {
                let call = u16::try_from(number).ok().and_then(Hypercall::from_number);
                call.map(Hypercall::name)
            }
            Self::Type1 => paravirt::call_name(number),
            Self::VirtIO => None,
        }
    }

    /// Every mode, in the order of the proposal.
    pub const ALL: [Self; 3] = [Self::Type1, Self::VirtIO, Self::Hvt];

    /// Its name in configuration files and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Type1 => "type1",
            Self::VirtIO => "virtio",
            Self::Hvt => "hvt",
        }
    }

    /// What its guests are, for messages.
    pub const fn guests(self) -> &'static str {
        match self {
            Self::Type1 => "unmodified operating systems",
            Self::VirtIO => "guests with VirtIO drivers",
            Self::Hvt => "Solo5 unikernels",
        }
    }
}

impl fmt::Display for ModeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownMode {
    /// The mode that was probably meant.
    pub nearest: Option<&'static str>,
}

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nearest {
            Some(name) => write!(f, "no such mode: did you mean \"{name}\"?"),
            None => f.write_str("no such mode: use \"type1\", \"virtio\" or \"hvt\""),
        }
    }
}

impl core::error::Error for UnknownMode {}

impl FromStr for ModeKind {
    type Err = UnknownMode;

    /// Reads a mode's name; case does not count.
    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        let named = |mode: &Self| text.eq_ignore_ascii_case(mode.name());
        let unknown = || UnknownMode { nearest: nearest(text, Self::ALL.map(Self::name)) };
        Self::ALL.into_iter().find(named).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_come_back() {
        for mode in ModeKind::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert_eq!("VirtIO".parse(), Ok(ModeKind::VirtIO));
    }

    #[test]
    fn a_slip_names_the_nearest() {
        let error = "hvm".parse::<ModeKind>().unwrap_err();
        assert_eq!(error.to_string(), "no such mode: did you mean \"hvt\"?");
        let error = "xen".parse::<ModeKind>().unwrap_err();
        assert!(error.to_string().contains("\"type1\""), "{error}");
    }
}
