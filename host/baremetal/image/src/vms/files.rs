//! Files of the boot module: images to load from, and RAM disks.
//!
//! A disk is its file itself, in the module's memory. One that guests may only read is a disk of any
//! number of them. One that may be written is that guest's alone: it is neither opened nor made a
//! disk a second time meanwhile.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};
use host_baremetal::bundle::{self, BundleError};
use hypervisor::host::{Blob, BlockStore, HostError, HostErrorKind};
use hypervisor::memory::GuestSlice;
use hypervisor::sync::Mutex;

/// The boot module.
pub struct Files {
    start: *mut u8,
    length: usize,
    /// Where the files that are disks begin, and whose they are.
    disks: Mutex<BTreeMap<usize, Owners>>,
}

/// Whose disk a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owners {
    /// One guest's, which may write to it.
    One,
    /// So many guests', which only read.
    Readers(u32),
}

// SAFETY: the module is RAM that nothing else uses; what is written is in a disk's range, which
// is one guest's.
unsafe impl Send for Files {}
// SAFETY: as above.
unsafe impl Sync for Files {}

const MISSING: HostError =
    HostError::new(HostErrorKind::Other, "there is no such file in the boot module");
const IN_USE: HostError = HostError::new(
    HostErrorKind::Denied,
    "the file is a disk of another VM: stop and destroy that",
);

impl Files {
    /// The files of the module at these physical addresses; none if it is empty.
    pub fn new(module: Range<u64>) -> Self {
        let start = crate::memory::window(module.start);
        let length = usize::try_from(module.end - module.start).unwrap_or(0);
        Self { start, length, disks: Mutex::default() }
    }

    fn archive(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: the module is mapped and stays. Disks change under this, but only what is
        // between headers, of which nothing is read through this reference.
        unsafe { core::slice::from_raw_parts(self.start, self.length) }
    }

    /// The names of all files.
    ///
    /// # Errors
    /// If the module is no archive.
    pub fn names(&self) -> Result<Vec<&str>, BundleError> {
        bundle::files(self.archive()).map(|entry| Ok(entry?.name)).collect()
    }

    fn range(&self, name: &str) -> Result<Range<usize>, HostError> {
        bundle::find(self.archive(), name).ok().flatten().ok_or(MISSING)
    }

    fn check_readable(&self, range: &Range<usize>) -> Result<(), HostError> {
        match self.disks.lock().get(&range.start) {
            Some(Owners::One) => Err(IN_USE),
            Some(Owners::Readers(_)) | None => Ok(()),
        }
    }

    /// A file's contents.
    ///
    /// # Errors
    /// If there is none, or it is a disk that may be written.
    pub fn read(&self, name: &str) -> Result<&[u8], HostError> {
        let range = self.range(name)?;
        self.check_readable(&range)?;
        Ok(&self.archive()[range])
    }

    /// A file's text.
    ///
    /// # Errors
    /// If there is none, or it is no text.
    pub fn text(&self, name: &str) -> Result<&str, HostError> {
        let bytes = self.read(name)?;
        let text = core::str::from_utf8(bytes);
        let error = HostError::new(HostErrorKind::Other, "the file is no text in UTF-8");
        text.map_err(|_| error)
    }

    /// A file to load from.
    ///
    /// # Errors
    /// If there is none, or it is a disk that may be written.
    pub fn open(self: &Arc<Self>, name: &str) -> Result<Box<dyn Blob>, HostError> {
        let range = self.range(name)?;
        self.check_readable(&range)?;
        Ok(Box::new(File { files: self.clone(), range }))
    }

    /// A file as a disk.
    ///
    /// # Errors
    /// If there is none, or it is one already and one of the two may write to it.
    pub fn disk(
        self: &Arc<Self>,
        name: &str,
        read_only: bool,
    ) -> Result<Box<dyn BlockStore>, HostError> {
        let range = self.range(name)?;
        let mut disks = self.disks.lock();
        let owners = match (disks.get(&range.start), read_only) {
            (None, false) => Owners::One,
            (None, true) => Owners::Readers(1),
            (Some(Owners::Readers(count)), true) => Owners::Readers(count.saturating_add(1)),
            _ => return Err(IN_USE),
        };
        disks.insert(range.start, owners);
        Ok(Box::new(RamDisk { files: self.clone(), range, read_only }))
    }

    /// One of a disk's guests is gone.
    fn give_back(&self, range: &Range<usize>) {
        let mut disks = self.disks.lock();
        match disks.get_mut(&range.start) {
            Some(Owners::Readers(count)) if *count > 1 => *count -= 1,
            _ => drop(disks.remove(&range.start)),
        }
    }
}

/// So much is copied or cleared before others have their turn.
const PIECE: usize = 64 << 10;

/// Bytes that were copied or cleared for guests since others had their turn. A guest may ask for
/// many small pieces as well as for a large one.
static DONE: AtomicUsize = AtomicUsize::new(0);

/// So much has been done for a guest: others have their turn, if it has become much. No lock is held.
fn breathe(count: usize) {
    if DONE.fetch_add(count, Ordering::Relaxed).saturating_add(count) >= PIECE {
        DONE.store(0, Ordering::Relaxed);
        crate::thread::take_interrupts();
    }
}

struct File {
    files: Arc<Files>,
    range: Range<usize>,
}

impl Blob for File {
    fn len(&self) -> u64 {
        self.range.len() as u64
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError> {
        let archive = &self.files.archive()[self.range.clone()];
        let mut done = 0;
        // A guest that resets its machine again and again has its kernel loaded as often.
        while let Some(part) = to.part(done, PIECE.min(to.len() - done)).filter(|p| !p.is_empty()) {
            let count = Blob::read_at(archive, offset.saturating_add(done as u64), part)?;
            breathe(count);
            done += count;
            if count < part.len() {
                break;
            }
        }
        Ok(done)
    }

    fn cleared(&self, bytes: usize) {
        breathe(bytes);
    }
}

struct RamDisk {
    files: Arc<Files>,
    range: Range<usize>,
    read_only: bool,
}

impl RamDisk {
    /// Where `length` bytes at an offset are, which the caller of a disk has checked; checked again.
    fn place(&self, offset: u64, length: usize) -> Result<*mut u8, HostError> {
        let outside = HostError::new(HostErrorKind::Other, "RAM disk: outside of the disk");
        let offset = usize::try_from(offset).map_err(|_| outside)?;
        let end = offset.checked_add(length).filter(|end| *end <= self.range.len());
        end.ok_or(outside)?;
        Ok(self.files.start.wrapping_add(self.range.start + offset))
    }

    /// Moves bytes between the guest and the disk, a part at a time: `one` is given each with its
    /// place.
    fn transfer(
        &self,
        offset: u64,
        slice: GuestSlice<'_>,
        one: impl Fn(*mut u8, GuestSlice<'_>),
    ) -> Result<(), HostError> {
        let place = self.place(offset, slice.len())?;
        for at in (0..slice.len()).step_by(PIECE) {
            let Some(part) = slice.part(at, PIECE.min(slice.len() - at)) else { break };
            one(place.wrapping_add(at), part);
            breathe(part.len());
        }
        Ok(())
    }
}

impl BlockStore for RamDisk {
    fn capacity(&self) -> u64 {
        self.range.len() as u64
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<(), HostError> {
        self.transfer(offset, to, |place, part| {
            // SAFETY: inside of the disk. One that is written is this guest's, and a disk's requests
            // are done one after the other; another is only read.
            part.copy_from(unsafe { core::slice::from_raw_parts(place, part.len()) });
        })
    }

    fn write_at(&self, offset: u64, from: GuestSlice<'_>) -> Result<(), HostError> {
        if self.read_only {
            return Err(HostError::new(HostErrorKind::Denied, "RAM disk: it may only be read"));
        }
        self.transfer(offset, from, |place, part| {
            // SAFETY: as above.
            part.copy_to(unsafe { core::slice::from_raw_parts_mut(place, part.len()) });
        })
    }

    fn flush(&self) -> Result<(), HostError> {
        Ok(())
    }
}

impl Drop for RamDisk {
    fn drop(&mut self) {
        self.files.give_back(&self.range);
    }
}
