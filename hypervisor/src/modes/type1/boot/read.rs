//! Reading what a guest is started with: small pieces to look at, and large ones straight into
//! the guest's memory, never held twice.

use crate::host::{Blob, HostError};
use crate::memory::{Gpa, GuestMemory, GuestSlice, MemoryError, Perms};

/// How much is asked of a host at once. Bounded, so that a host can serve it from a window.
const PIECE: u64 = 1 << 20;

/// Why a part of a file did not get to where it was to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The host cannot read the file.
    #[error("{what} cannot be read: {error}; check the file and its disk")]
    Host {
        /// What was to be read.
        what: &'static str,
        /// What the host said.
        error: HostError,
    },
    /// The file ends before something that it says it has.
    #[error(
        "{what}, {size} bytes at offset {offset}, goes beyond the end of the file ({file} bytes); the file is cut off, or something else"
    )]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Its offset in the file.
        offset: u64,
        /// Its size in bytes.
        size: u64,
        /// The file's size in bytes.
        file: u64,
    },
    /// The guest's memory is not where it has to be.
    #[error("{what} cannot be loaded: {error}; give the VM more memory")]
    Memory {
        /// What was to be loaded.
        what: &'static str,
        /// What is wrong.
        error: MemoryError,
    },
}

/// Fills `to` from `offset`.
///
/// # Errors
/// [`ReadError`].
pub fn read_exact(
    blob: &(impl Blob + ?Sized),
    what: &'static str,
    offset: u64,
    to: &mut [u8],
) -> Result<(), ReadError> {
    fill(blob, what, offset, GuestSlice::from_host(to))
}

/// Copies `len` bytes from `offset` of a file to `gpa` of a guest's memory.
///
/// # Errors
/// [`ReadError`]; what has been copied then stays.
pub fn load(
    blob: &(impl Blob + ?Sized),
    what: &'static str,
    offset: u64,
    len: u64,
    memory: &GuestMemory,
    gpa: Gpa,
) -> Result<(), ReadError> {
    // Both ends before the first byte, so that a file that lies about its size costs nothing.
    let fits = offset.checked_add(len).is_some_and(|end| end <= blob.len());
    if !fits {
        return Err(ReadError::Truncated { what, offset, size: len, file: blob.len() });
    }
    let mut done = 0;
    while done < len {
        let piece = PIECE.min(len - done);
        let to = memory
            .slice(Gpa(gpa.0.saturating_add(done)), piece, Perms::WRITE)
            .map_err(|error| ReadError::Memory { what, error })?;
        fill(blob, what, offset + done, to)?;
        done += piece;
    }
    Ok(())
}

/// A host may give the bytes in several parts.
fn fill(
    blob: &(impl Blob + ?Sized),
    what: &'static str,
    offset: u64,
    to: GuestSlice<'_>,
) -> Result<(), ReadError> {
    let cut = ReadError::Truncated { what, offset, size: to.len() as u64, file: blob.len() };
    let mut done = 0;
    while done < to.len() {
        let rest = to.len() - done;
        let (Some(at), Some(part)) = (offset.checked_add(done as u64), to.part(done, rest)) else {
            return Err(cut);
        };
        match blob.read_at(at, part).map_err(|error| ReadError::Host { what, error })? {
            0 => return Err(cut),
            count => done += count.min(rest),
        }
    }
    Ok(())
}
