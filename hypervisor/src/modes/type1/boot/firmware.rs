//! Firmware: a ROM image that ends at 4 GiB and, its last part, at 1 MiB.
//!
//! Order: the machine's memory has the two ranges of [`Rom::new`] as RAM; [`Rom::load`] fills
//! both; the write permission is taken from [`Rom::high`]; the first vCPU starts in
//! [`super::state::reset`]. What is below 1 MiB stays writable: firmware copies itself there and
//! switches it to "RAM" by the host bridge's PAM registers, which is what it is already.

use super::StartError;
use super::read::load;
use crate::host::Blob;
use crate::memory::{Gpa, GuestMemory};
use crate::modes::type1::layout::{FIRMWARE_SHADOW, MAX_FIRMWARE, firmware};
use core::ops::Range;

const PAGE: u64 = 4 << 10;
const SMALLEST: u64 = 64 << 10;

/// Where a firmware image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rom {
    /// All of it, up to 4 GiB: read-only.
    pub high: Range<u64>,
    /// Its end, below 1 MiB.
    pub low: Range<u64>,
}

impl Rom {
    /// Where an image of this size goes.
    ///
    /// # Errors
    /// [`StartError::FirmwareSize`].
    pub fn new(size: u64) -> Result<Self, StartError> {
        if !(SMALLEST..=MAX_FIRMWARE).contains(&size) || !size.is_multiple_of(PAGE) {
            return Err(StartError::FirmwareSize(size));
        }
        let low = FIRMWARE_SHADOW.end.saturating_sub(size).max(FIRMWARE_SHADOW.start);
        Ok(Self { high: firmware(size), low: low..FIRMWARE_SHADOW.end })
    }

    /// Reads the image to both places.
    ///
    /// # Errors
    /// [`StartError::Read`], or [`StartError::FirmwareSize`] if it has changed meanwhile.
    pub fn load(&self, blob: &dyn Blob, memory: &GuestMemory) -> Result<(), StartError> {
        let size = self.high.end - self.high.start;
        if blob.len() != size {
            return Err(StartError::FirmwareSize(blob.len()));
        }
        let low = self.low.end - self.low.start;
        load(blob, "the firmware", 0, size, memory, Gpa(self.high.start))?;
        load(blob, "the firmware", size - low, low, memory, Gpa(self.low.start))?;
        Ok(())
    }
}
