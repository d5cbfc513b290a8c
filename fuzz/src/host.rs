//! A host that checks what the core promises to hosts: ranges inside of the disk, frames that fit.

use hypervisor::host::{BlockStore, Clock, Console, HostError, HostErrorKind, NetPort, WaitSet};
use hypervisor::memory::GuestSlice;
use hypervisor::modes::hvt::service::{Device, HostEvents, Resources};
use hypervisor::vcpu::{Answer, Ending};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Handle of the disk.
pub const DISK: usize = 1;
/// Handle of the network.
pub const NET: usize = 2;
const CAPACITY: usize = 4096;
const MTU: u16 = 1500;

/// A disk, a network, a console and clocks; one call in seven fails.
pub fn resources() -> Resources {
    let (disk, net) = (Device::Block(disk()), Device::Net(net()));
    Resources {
        console: console(),
        clock: Box::new(Still),
        wait: Box::new(Still),
        devices: vec![None, Some(disk), Some(net)],
    }
}

/// The console alone.
pub fn console() -> Box<dyn Console> {
    Box::new(Sink)
}

/// The disk alone.
pub fn disk() -> Box<dyn BlockStore> {
    Box::new(Disk(Mutex::new(vec![0; CAPACITY]), Luck::default()))
}

/// The network alone.
pub fn net() -> Box<dyn NetPort> {
    Box::new(Net(Luck::default()))
}

#[derive(Default)]
struct Luck(AtomicU32);

impl Luck {
    fn next(&self) -> Result<(), HostError> {
        match self.0.fetch_add(1, Ordering::Relaxed) % 7 {
            6 => Err(HostError::new(HostErrorKind::Io, "no luck")),
            _ => Ok(()),
        }
    }
}

struct Disk(Mutex<Vec<u8>>, Luck);

impl BlockStore for Disk {
    fn capacity(&self) -> u64 {
        CAPACITY as u64
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<(), HostError> {
        self.1.next()?;
        let store = self.0.lock().expect("one thread");
        to.copy_from(&store[offset as usize..][..to.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, from: GuestSlice<'_>) -> Result<(), HostError> {
        self.1.next()?;
        let mut store = self.0.lock().expect("one thread");
        from.copy_to(&mut store[offset as usize..][..from.len()]);
        Ok(())
    }

    fn flush(&self) -> Result<(), HostError> {
        Ok(())
    }
}

struct Net(Luck);

impl NetPort for Net {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }

    fn mtu(&self) -> u16 {
        MTU
    }

    fn send(&self, frame: GuestSlice<'_>) -> Result<(), HostError> {
        assert!(frame.len() <= usize::from(MTU) + 18);
        let mut bytes = vec![0; frame.len()];
        assert_eq!(frame.copy_to(&mut bytes), bytes.len());
        self.0.next()
    }

    fn receive(&self, to: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
        self.0.next()?;
        let count = to.copy_from(&[0x5a; 60]);
        Ok((count > 0).then_some(count))
    }
}

struct Sink;

impl Console for Sink {
    fn write(&self, text: GuestSlice<'_>) -> Result<(), HostError> {
        let mut bytes = vec![0; text.len()];
        assert_eq!(text.copy_to(&mut bytes), bytes.len());
        Ok(())
    }
}

struct Still;

impl Clock for Still {
    fn wall_ns(&self) -> u64 {
        1
    }

    fn monotonic_ns(&self) -> u64 {
        1
    }
}

impl WaitSet for Still {
    fn wait(&self, timeout_ns: u64) -> Result<u64, HostError> {
        Ok(if timeout_ns == 0 { 0 } else { 1 << NET })
    }
}

/// Interrupts end the guest.
pub struct Stop;

impl HostEvents for Stop {
    fn interrupted(&self) -> Answer {
        Answer::End(Ending::Interrupted)
    }
}
