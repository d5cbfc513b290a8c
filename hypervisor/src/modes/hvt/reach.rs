//! What of its memory a guest may name in a hypercall or in a submission to its ring: all that it
//! was told of, but not the ring, which lies right above (Solo5 v0.12.1 refuses it too).

use crate::memory::{Gpa, GuestMemory, GuestSlice, MemoryError, Perms};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Guest memory below an address.
#[derive(Clone, Copy)]
pub struct Reach<'a> {
    memory: &'a GuestMemory,
    end: u64,
}

impl<'a> Reach<'a> {
    /// The part of `memory` below `end`.
    pub const fn below(end: u64, memory: &'a GuestMemory) -> Self {
        Self { memory, end }
    }

    /// As [`GuestMemory::slice`].
    ///
    /// # Errors
    /// Also where the range reaches beyond the end.
    pub fn slice(&self, gpa: Gpa, len: u64, needs: Perms) -> Result<GuestSlice<'a>, MemoryError> {
        match gpa.0.checked_add(len) {
            Some(end) if end <= self.end => self.memory.slice(gpa, len, needs),
            _ => Err(MemoryError::OutOfRange { gpa, len }),
        }
    }

    /// Copies an object out.
    ///
    /// # Errors
    /// As [`Self::slice`].
    pub fn read_obj<T: FromBytes + IntoBytes>(&self, gpa: Gpa) -> Result<T, MemoryError> {
        self.copy(gpa, Perms::READ)
    }

    /// Copies an object out of memory that may be written too.
    ///
    /// # Errors
    /// As [`Self::slice`].
    pub fn read_in_out<T: FromBytes + IntoBytes>(&self, gpa: Gpa) -> Result<T, MemoryError> {
        self.copy(gpa, Perms::READ | Perms::WRITE)
    }

    /// Copies an object in.
    ///
    /// # Errors
    /// As [`Self::slice`].
    pub fn write_obj<T: IntoBytes + Immutable>(
        &self,
        gpa: Gpa,
        value: &T,
    ) -> Result<(), MemoryError> {
        self.slice(gpa, size_of::<T>() as u64, Perms::WRITE)?.copy_from(value.as_bytes());
        Ok(())
    }

    fn copy<T: FromBytes + IntoBytes>(&self, gpa: Gpa, needs: Perms) -> Result<T, MemoryError> {
        let slice = self.slice(gpa, size_of::<T>() as u64, needs)?;
        let mut value = T::new_zeroed();
        slice.copy_to(value.as_mut_bytes());
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::HostBlock;

    #[test]
    fn what_is_memory_but_beyond_the_end_is_out_of_reach() {
        let mut memory = GuestMemory::new();
        memory.add(HostBlock::zeroed(Gpa(0x1000), 0x1000)).unwrap();
        let reach = Reach::below(0x1800, &memory);
        assert!(memory.slice(Gpa(0x1801), 8, Perms::READ).is_ok());
        assert!(reach.slice(Gpa(0x17f8), 8, Perms::READ).is_ok());
        for (gpa, len) in [(0x17f9, 8), (0x1800, 1), (0x1900, 8), (u64::MAX, 8), (0x1000, u64::MAX)]
        {
            let refused = MemoryError::OutOfRange { gpa: Gpa(gpa), len };
            assert_eq!(reach.slice(Gpa(gpa), len, Perms::READ).err(), Some(refused), "{gpa:#x}");
        }
        assert!(reach.write_obj(Gpa(0x17fc), &1u64).is_err());
        reach.write_obj(Gpa(0x17f8), &7u64).unwrap();
        assert_eq!(reach.read_obj::<u64>(Gpa(0x17f8)), Ok(7));
        assert_eq!(reach.read_in_out::<u32>(Gpa(0x17fc)), Ok(0));
    }
}
