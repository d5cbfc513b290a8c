//! The number of a VM.

use core::fmt;
use core::num::NonZeroU32;

/// The number of a VM, unique among all modes of a hypervisor. A number is used again only after
/// all 4,294,967,295 others have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(NonZeroU32);

impl VmId {
    /// The VM of this number; 0 is none.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The first of all.
    pub(super) const FIRST: Self = Self(NonZeroU32::MIN);

    /// The one after this, which after the last is the first.
    pub(super) fn next(self) -> Self {
        self.0.checked_add(1).map_or(Self::FIRST, Self)
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
