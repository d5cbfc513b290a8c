//! What a host lends a guest: disks, networks, consoles, clocks, displays, directories.
//!
//! Contract: a host knows nothing of guests' registers and trusts nothing that a guest says; the
//! core has checked every range before it calls. Implementations take `&self`, are safe to share
//! between vCPU threads, and never panic.

use crate::memory::GuestSlice;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

pub mod errno;
pub mod mac;
mod told;

pub use told::Told;

/// What went wrong in the host: a kind for a program, and what a person needs to know.
///
/// It owns no memory, so that it can be made where nothing may be allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostError {
    /// What kind of failure it is.
    pub kind: HostErrorKind,
    /// The operating system's error number, or 0 where it was not the operating system.
    pub errno: i32,
    /// What was being done, such as `"block write"`.
    pub what: &'static str,
}

impl HostError {
    /// A failure that has no error number: `what` says it all.
    pub const fn new(kind: HostErrorKind, what: &'static str) -> Self {
        Self { kind, errno: 0, what }
    }

    /// A failure of a system call while doing `what`.
    pub const fn from_errno(errno: i32, what: &'static str) -> Self {
        Self { kind: HostErrorKind::of(errno), errno, what }
    }
}

/// Kinds of host failure that a device may treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostErrorKind {
    /// No room: a full disk, a reached quota or file size limit.
    NoSpace,
    /// The device failed or has vanished.
    Io,
    /// The host refused the access.
    Denied,
    /// Anything else.
    Other,
}

impl HostErrorKind {
    /// The kind that an error number belongs to.
    pub const fn of(errno: i32) -> Self {
        match errno {
            27 | 28 | 122 => Self::NoSpace,
            5 | 6 | 19 | 32 | 61 | 77 | 100 | 104 | 107 => Self::Io,
            1 | 13 | 30 => Self::Denied,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match (self.errno, errno::words(self.errno)) {
            (0, _) => Ok(()),
            (_, Some(words)) => write!(f, ": {words}"),
            (number, None) => write!(f, ": error {number}"),
        }
    }
}

impl core::error::Error for HostError {}

/// Pieces of memory, one behind the other.
pub type Pieces<'a, 'b> = &'a mut dyn Iterator<Item = GuestSlice<'b>>;

/// A disk: a fixed number of bytes that can be read and written at any offset.
pub trait BlockStore: Send + Sync {
    /// Size in bytes.
    fn capacity(&self) -> u64;

    /// Fills `to` with what is at `offset`. The caller has checked `offset + to.len() <=
    /// capacity()`.
    ///
    /// # Errors
    /// If not all of it could be read.
    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<(), HostError>;

    /// Writes all of `from` at `offset`. When it returns `Ok`, the data survives the end of this
    /// process (not of the machine: see [`BlockStore::flush`]).
    ///
    /// # Errors
    /// If not all of it could be written.
    fn write_at(&self, offset: u64, from: GuestSlice<'_>) -> Result<(), HostError>;

    /// Fills pieces of memory, one behind the other and `len` bytes together, with what is at
    /// `offset`, as [`BlockStore::read_at`] does. A piece may be of any length.
    ///
    /// # Errors
    /// If not all of it could be read.
    fn read_pieces(&self, offset: u64, _len: u64, to: Pieces<'_, '_>) -> Result<(), HostError> {
        let mut at = offset;
        for piece in to {
            self.read_at(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Writes pieces of memory, one behind the other and `len` bytes together, at `offset`, as
    /// [`BlockStore::write_at`] does.
    ///
    /// # Errors
    /// If not all of it could be written.
    fn write_pieces(&self, offset: u64, _len: u64, from: Pieces<'_, '_>) -> Result<(), HostError> {
        let mut at = offset;
        for piece in from {
            self.write_at(at, piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes all earlier writes survive the end of the machine.
    ///
    /// # Errors
    /// If the host could not promise that.
    fn flush(&self) -> Result<(), HostError>;
}

/// One end of a network: Ethernet frames in and out.
pub trait NetPort: Send + Sync {
    /// Hardware address of the guest's side.
    fn mac(&self) -> [u8; 6];

    /// Largest payload of a frame in bytes, without the Ethernet header.
    fn mtu(&self) -> u16;

    /// Sends one frame.
    ///
    /// # Errors
    /// If it was not sent whole.
    fn send(&self, frame: GuestSlice<'_>) -> Result<(), HostError>;

    /// Takes the next frame that has arrived, if there is one, and returns its length. A frame
    /// longer than `to` is cut.
    ///
    /// # Errors
    /// If the network is gone.
    fn receive(&self, to: GuestSlice<'_>) -> Result<Option<usize>, HostError>;
}

impl<T: NetPort + ?Sized> NetPort for Arc<T> {
    fn mac(&self) -> [u8; 6] {
        (**self).mac()
    }

    fn mtu(&self) -> u16 {
        (**self).mtu()
    }

    fn send(&self, frame: GuestSlice<'_>) -> Result<(), HostError> {
        (**self).send(frame)
    }

    fn receive(&self, to: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
        (**self).receive(to)
    }
}

/// Where a host writes down what a person should know of a VM: its log, standard error.
pub trait Notices: Send + Sync {
    /// Takes one line, without its end. It may block.
    fn notice(&self, text: fmt::Arguments<'_>);
}

/// Where a guest's console output goes.
pub trait Console: Send + Sync {
    /// Writes all of `text`, which may be any bytes.
    ///
    /// # Errors
    /// If it could not be written.
    fn write(&self, text: GuestSlice<'_>) -> Result<(), HostError>;
}

/// The host's clocks.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    fn wall_ns(&self) -> u64;

    /// Nanoseconds since some moment in the past; never goes back.
    fn monotonic_ns(&self) -> u64;
}

/// Waits for networks. Bit `i` of a set stands for the port that the host knows as `i`.
pub trait WaitSet: Send + Sync {
    /// Waits until a port has a frame to take or `timeout_ns` nanoseconds have passed, and
    /// returns the set of the ports that have one.
    ///
    /// # Errors
    /// If the host cannot wait.
    fn wait(&self, timeout_ns: u64) -> Result<u64, HostError>;
}

/// A directory tree that the host shows to a guest (virtio-fs). No host implements it yet.
pub trait FileTree: Send + Sync {
    /// A name for messages.
    fn name(&self) -> &str;
}

/// A picture that a guest draws (virtio-gpu). No host implements it yet.
pub trait Display: Send + Sync {
    /// Width and height in pixels.
    fn size(&self) -> (u32, u32);
}

/// A file or boot module that an image is loaded from.
pub trait Blob: Send + Sync {
    /// Size in bytes.
    fn len(&self) -> u64;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `to` from `offset` as far as there is data; returns how many bytes that was.
    ///
    /// # Errors
    /// If the host cannot read it.
    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError>;

    /// So many bytes of a guest's memory were cleared while it was loaded. No lock is held: a host
    /// that shares its processors may let others run.
    fn cleared(&self, bytes: usize) {
        let _ = bytes;
    }
}

impl Blob for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(<[u8]>::len(self));
        let rest = &self[start..];
        let count = rest.len().min(to.len());
        Ok(to.copy_from(&rest[..count]))
    }
}

impl Blob for Vec<u8> {
    fn len(&self) -> u64 {
        Blob::len(&self[..])
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError> {
        self[..].read_at(offset, to)
    }
}

impl<T: Blob + ?Sized> Blob for Arc<T> {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError> {
        (**self).read_at(offset, to)
    }

    fn cleared(&self, bytes: usize) {
        (**self).cleared(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn errors_say_what_failed_and_why() {
        let full = HostError::from_errno(28, "block write");
        assert_eq!(full.kind, HostErrorKind::NoSpace);
        assert_eq!(full.to_string(), "block write: No space left on device");
        assert_eq!(HostError::from_errno(4095, "x").to_string(), "x: error 4095");
        let gone = HostError::new(HostErrorKind::Io, "the network is gone");
        assert_eq!(gone.to_string(), "the network is gone");
    }
}
