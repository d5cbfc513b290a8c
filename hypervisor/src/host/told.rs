//! Disks and networks whose failures a person hears of.
//!
//! A guest is told of each failed request by its device, and may keep it to itself: a full disk of
//! the host then looks like a guest that is broken. So the host's log gets one line for each kind of
//! failure of a device. A guest that fails for ever does not fill the log. Nothing here allocates
//! once it is made: it also serves where nothing may be allocated.

use super::{BlockStore, HostError, NetPort, Notices, Pieces};
use crate::memory::GuestSlice;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Kinds of failure that are told of one device; each is a number and what was being done.
const KINDS: usize = 8;

/// A disk or a network, and where its failures are told.
pub struct Told<T: ?Sized> {
    inner: Box<T>,
    name: String,
    log: Arc<dyn Notices>,
    /// What has been told, in this order; 0 is nothing.
    told: [AtomicU64; KINDS],
}

impl<T: ?Sized> Told<T> {
    /// Tells of this one under a name that its owner knows, such as ``disk `storage'``.
    pub fn new(inner: Box<T>, name: String, log: Arc<dyn Notices>) -> Self {
        Self { inner, name, log, told: Default::default() }
    }

    fn pass<R>(&self, result: Result<R, HostError>) -> Result<R, HostError> {
        result.inspect_err(|error| {
            if self.is_new(error) {
                let name = &self.name;
                self.log.notice(format_args!("{name}: {error}; more of this kind is not logged"));
            }
        })
    }

    /// Whether this kind has not been told; from now on it has.
    fn is_new(&self, error: &HostError) -> bool {
        let what = error.what.as_ptr().addr() as u64 & 0xffff_ffff;
        let kind = u64::from(error.errno.cast_unsigned()) << 32 | what | 1;
        for slot in &self.told {
            match slot.compare_exchange(0, kind, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(old) if old == kind => return false,
                Err(_) => {}
            }
        }
        false
    }
}

impl BlockStore for Told<dyn BlockStore> {
    fn capacity(&self) -> u64 {
        self.inner.capacity()
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<(), HostError> {
        self.pass(self.inner.read_at(offset, to))
    }

    fn write_at(&self, offset: u64, from: GuestSlice<'_>) -> Result<(), HostError> {
        self.pass(self.inner.write_at(offset, from))
    }

    fn read_pieces(&self, offset: u64, len: u64, to: Pieces<'_, '_>) -> Result<(), HostError> {
        self.pass(self.inner.read_pieces(offset, len, to))
    }

    fn write_pieces(&self, offset: u64, len: u64, from: Pieces<'_, '_>) -> Result<(), HostError> {
        self.pass(self.inner.write_pieces(offset, len, from))
    }

    fn flush(&self) -> Result<(), HostError> {
        self.pass(self.inner.flush())
    }
}

impl From<Told<dyn BlockStore>> for Box<dyn BlockStore> {
    fn from(told: Told<dyn BlockStore>) -> Self {
        Box::new(told)
    }
}

impl From<Told<dyn NetPort>> for Box<dyn NetPort> {
    fn from(told: Told<dyn NetPort>) -> Self {
        Box::new(told)
    }
}

impl NetPort for Told<dyn NetPort> {
    fn mac(&self) -> [u8; 6] {
        self.inner.mac()
    }

    fn mtu(&self) -> u16 {
        self.inner.mtu()
    }

    fn send(&self, frame: GuestSlice<'_>) -> Result<(), HostError> {
        self.pass(self.inner.send(frame))
    }

    fn receive(&self, to: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
        self.pass(self.inner.receive(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Mutex;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use core::fmt;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Notices for Log {
        fn notice(&self, text: fmt::Arguments<'_>) {
            self.0.lock().push(text.to_string());
        }
    }

    /// Fails by the number that it is asked for.
    struct Broken;

    impl BlockStore for Broken {
        fn capacity(&self) -> u64 {
            512
        }

        fn read_at(&self, offset: u64, _: GuestSlice<'_>) -> Result<(), HostError> {
            Err(HostError::from_errno(i32::try_from(offset).unwrap(), "block read"))
        }

        fn write_at(&self, _: u64, _: GuestSlice<'_>) -> Result<(), HostError> {
            Err(HostError::from_errno(5, "block write"))
        }

        fn flush(&self) -> Result<(), HostError> {
            Ok(())
        }
    }

    #[test]
    fn each_kind_of_failure_is_told_once() {
        let log = Arc::new(Log::default());
        let disk: Box<dyn BlockStore> = Box::new(Broken);
        let disk = Told::new(disk, "disk `a'".into(), log.clone());
        let mut bytes = [0; 8];
        let memory = GuestSlice::from_host(&mut bytes);
        for _ in 0..3 {
            assert_eq!(disk.read_at(5, memory).unwrap_err().errno, 5);
            assert!(disk.write_at(0, memory).is_err());
            assert!(disk.read_at(28, memory).is_err());
            assert_eq!(disk.flush(), Ok(()));
        }
        let told = "; more of this kind is not logged";
        let lines = ["block read: Input/output error", "block write: Input/output error"]
            .into_iter()
            .chain(["block read: No space left on device"])
            .map(|line| alloc::format!("disk `a': {line}{told}"));
        assert_eq!(*log.0.lock(), lines.collect::<Vec<_>>());
        (100..200).for_each(|errno| assert!(disk.read_at(errno, memory).is_err()));
        assert_eq!(log.0.lock().len(), KINDS);
    }
}
