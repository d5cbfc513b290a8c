//! A guest's memory for its debugger: through the file behind it, whatever its permissions are.

use crate::layout::LOWEST;
use core::ops::Range;
use hypervisor::vcpu::BackendError;
use rustix::fd::OwnedFd;

/// The file that backs a guest's memory.
pub struct Code {
    file: OwnedFd,
    range: Range<u64>,
}

impl Code {
    /// The file of the memory at these guest addresses, which begin at [`LOWEST`].
    pub fn new(file: OwnedFd, end: u64) -> Self {
        Self { file, range: LOWEST..end }
    }

    /// Whether there is memory at this address.
    pub fn has(&self, at: u64) -> bool {
        self.range.contains(&at)
    }

    fn offset(&self, at: u64, len: usize) -> Result<u64, BackendError> {
        let end = at.checked_add(len as u64).filter(|&end| end <= self.range.end);
        if at < self.range.start || end.is_none() {
            let text = format!("{len} bytes at guest address {at:#x} are outside of guest memory");
            return Err(BackendError::new(text));
        }
        Ok(at - self.range.start)
    }

    /// The byte at an address.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn byte(&self, at: u64) -> Result<u8, BackendError> {
        let mut byte = [0];
        let offset = self.offset(at, 1)?;
        match rustix::io::pread(&self.file, &mut byte, offset) {
            Ok(1) => Ok(byte[0]),
            Ok(_) => Err(BackendError::new("the file of the guest's memory has become shorter")),
            Err(e) => Err(BackendError::new(format!("cannot read the guest's memory: {e}"))),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// If not all of it is memory, or the system refuses.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), BackendError> {
        let mut offset = self.offset(at, bytes.len())?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = rustix::io::pwrite(&self.file, rest, offset)
                .map_err(|e| BackendError::new(format!("cannot write the guest's memory: {e}")))?;
            if count == 0 {
                return Err(BackendError::new("cannot write the guest's memory"));
            }
            rest = rest.get(count..).unwrap_or_default();
            offset += count as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    #[test]
    fn nothing_outside_of_the_memory_is_touched() {
        let file = memfd_create("t", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 8).unwrap();
        let code = Code::new(file, LOWEST + 8);
        code.write(LOWEST + 4, &[1, 2, 3, 4]).unwrap();
        assert_eq!(code.byte(LOWEST + 7), Ok(4));
        for at in [0, LOWEST - 1, LOWEST + 5, LOWEST + 8, u64::MAX - 1] {
            assert!(code.write(at, &[9; 4]).is_err(), "{at:#x}");
        }
        assert!(code.byte(LOWEST + 8).is_err());
        assert_eq!(rustix::fs::fstat(&code.file).unwrap().st_size, 8);
    }
}
