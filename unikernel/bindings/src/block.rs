//! Block devices: hypercalls 4 and 5 of Solo5's hvt ABI.
//!
//! Order of calls: [`Block::acquire`] with a name from `manifest!`, then reads and writes. A write
//! that returned is in the host's file.

#![allow(unsafe_code)]

use crate::device::{self, Kind};
use crate::raw::{self, BlockIo, number};
use crate::{Error, Result};

/// A block device.
#[derive(Debug)]
pub struct Block {
    handle: u8,
    capacity: u64,
    block_size: u16,
}

impl Block {
    /// The block device with this name in the manifest.
    pub fn acquire(name: &str) -> Result<Self> {
        let (handle, entry) = device::find(Kind::Block, name)?;
        let (capacity, block_size) = entry.block();
        Ok(Self { handle, capacity, block_size })
    }

    /// Its size in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Size of a block in bytes; offsets and lengths are multiples of it.
    pub fn block_size(&self) -> usize {
        usize::from(self.block_size)
    }

    /// Reads `buffer.len()` bytes from byte `offset`, one block or many in one hypercall.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.check(offset, buffer.len())?;
        let mut io = self.io(offset, buffer.as_mut_ptr().expose_provenance(), buffer.len());
        // SAFETY: the buffer is ours, exclusive, and as long as the argument says.
        unsafe { raw::hypercall::<{ number::BLOCK_READ }, _>(&raw mut io) };
        Error::check(io.ret)
    }

    /// Writes `data` at byte `offset`, one block or many in one hypercall.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.check(offset, data.len())?;
        let mut io = self.io(offset, data.as_ptr().expose_provenance(), data.len());
        // SAFETY: the data are ours and as long as the argument says; the host only reads them.
        unsafe { raw::hypercall::<{ number::BLOCK_WRITE }, _>(&raw mut io) };
        Error::check(io.ret)
    }

    fn io(&self, offset: u64, data: usize, len: usize) -> BlockIo {
        let handle = u64::from(self.handle);
        BlockIo { handle, offset, data: data as u64, len: len as u64, ret: 0 }
    }

    /// The host checks the capacity; whole blocks are the guest's own duty.
    fn check(&self, offset: u64, len: usize) -> Result<()> {
        let size = u64::from(self.block_size);
        let whole = size != 0
            && len != 0
            && offset.is_multiple_of(size)
            && (len as u64).is_multiple_of(size);
        if whole { Ok(()) } else { Err(Error::InvalidArgument) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks() {
        let block = Block { handle: 1, capacity: 4096, block_size: 512 };
        assert_eq!(block.check(512, 1024), Ok(()));
        for (offset, len) in [(1, 512), (512, 511), (0, 0), (256, 512)] {
            assert_eq!(block.check(offset, len), Err(Error::InvalidArgument));
        }
    }
}
