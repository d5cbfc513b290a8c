//! The multiboot header: where it is, and what it asks for.
//!
//! Source: Multiboot Specification 0.6.96 §3.1. Nothing of it is trusted.

use super::MultibootError;
use crate::host::Blob;
use crate::modes::type1::boot::read::{ReadError, read_exact};
use alloc::vec;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, KnownLayout, Unaligned};

/// The header lies within so many bytes of the file, aligned to 4.
const SEARCHED: usize = 8192;
const MAGIC: u32 = 0x1bad_b002;
/// Magic, flags, checksum.
const SHORT: usize = 12;

/// Modules begin on a page: here they always do.
const PAGE_ALIGN: u32 = 1 << 0;
/// The kernel wants a memory map: here it always gets one.
const MEMORY_INFO: u32 = 1 << 1;
/// The kernel would like a graphics mode: there is none, and the boot information says so.
const VIDEO_MODE: u32 = 1 << 2;
/// The header has addresses, which count instead of the file's own format.
const ADDRESSES: u32 = 1 << 16;
/// Demands that must be understood.
const DEMANDS: u32 = 0xffff;

/// Where a kernel goes by its header's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Addresses {
    /// Where the header itself is to be.
    pub header: U32,
    /// Start of what is loaded.
    pub load: U32,
    /// Its end; 0: the file's end.
    pub load_end: U32,
    /// End of what is zeroed behind it; 0: nothing is.
    pub bss_end: U32,
    /// Where the kernel starts.
    pub entry: U32,
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its offset in the file.
    pub offset: u64,
    /// Where the kernel goes, if the header says so and not the ELF headers.
    pub addresses: Option<Addresses>,
}

impl Header {
    /// The first header of a file, if it has one.
    ///
    /// # Errors
    /// If it is cut off or makes a demand that is not known; if the file cannot be read.
    pub fn find(blob: &(impl Blob + ?Sized)) -> Result<Option<Self>, MultibootError> {
        let size = usize::try_from(blob.len()).unwrap_or(usize::MAX).min(SEARCHED);
        let mut start = vec![0; size];
        read_exact(blob, WHAT, 0, &mut start)?;
        let places = (0..size.saturating_sub(SHORT - 1)).step_by(4);
        for at in places {
            let [magic, flags, checksum] = words(&start[at..at + SHORT]);
            if magic == MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0 {
                return Self::read(&start[at..], at as u64, flags, blob.len()).map(Some);
            }
        }
        Ok(None)
    }

    fn read(rest: &[u8], offset: u64, flags: u32, file: u64) -> Result<Self, MultibootError> {
        let unknown = flags & DEMANDS & !(PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE);
        if unknown != 0 {
            return Err(MultibootError::Demand(unknown));
        }
        if flags & ADDRESSES == 0 {
            return Ok(Self { offset, addresses: None });
        }
        let size = size_of::<Addresses>();
        let Some(Ok((addresses, _))) = rest.get(SHORT..).map(Addresses::read_from_prefix) else {
            let offset = offset + SHORT as u64;
            return Err(ReadError::Truncated { what: WHAT, offset, size: size as u64, file }.into());
        };
        Ok(Self { offset, addresses: Some(addresses) })
    }
}

const WHAT: &str = "the multiboot header";

fn words(bytes: &[u8]) -> [u32; 3] {
    let word = |i: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[i * 4..i * 4 + 4]);
        u32::from_le_bytes(word)
    };
    [word(0), word(1), word(2)]
}
