//! One access of a guest to a device.

/// How wide an access is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Long = 4,
    /// 64 bits.
    Quad = 8,
}

impl Width {
    /// Every width.
    pub const ALL: [Self; 4] = [Self::Byte, Self::Word, Self::Long, Self::Quad];

    /// The width of so many bytes, if there is one.
    pub fn from_bytes(bytes: u8) -> Option<Self> {
        const WIDTHS: [Option<Width>; 9] = {
            let (byte, word) = (Some(Width::Byte), Some(Width::Word));
            let (long, quad) = (Some(Width::Long), Some(Width::Quad));
            [None, byte, word, None, long, None, None, None, quad]
        };
        WIDTHS.get(usize::from(bytes)).copied().flatten()
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self as u64
    }

    /// All bits of a value of this width: what an open bus reads as.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self as u32)
    }
}

/// Where in a device, and how wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Bytes from the start of the device's range. The whole access is inside of the range; it
    /// may be misaligned.
    pub offset: u64,
    /// How wide.
    pub width: Width,
}
