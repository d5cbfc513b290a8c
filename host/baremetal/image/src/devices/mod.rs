//! The machine's own devices that guests share: virtio disks and networks on PCI, driven by the
//! `virtio-drivers` crate.
//!
//! They are looked for when one is first asked for. A device's interrupt wakes every thread that
//! waits for one: there are few, and each looks for itself.

mod dma;
mod pci;
mod transport;

pub mod disk;
pub mod nic;

use crate::log::{info, warning};
use crate::thread;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use disk::Disk;
use host_baremetal::sched::ThreadId;
use hypervisor::sync::Mutex;
use nic::Nic;
use transport::Transport;
use virtio_drivers::transport::DeviceType;

/// Every device.
#[derive(Default)]
pub struct Devices {
    /// Disks, in the order in which they were found.
    pub disks: Vec<Arc<Disk>>,
    /// Networks, each until it is some switch's uplink.
    pub nics: Vec<Option<Box<Nic>>>,
    /// What tells this machine from others: the hardware address of its first network, if it has
    /// one. Without one no guest of another machine is near.
    pub identity: [u8; 6],
}

/// Threads that wait for a device.
static WAITING: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

/// A device has done something.
pub fn interrupt() {
    for id in WAITING.lock().iter() {
        thread::unpark(*id);
    }
}

/// While it lives, devices' interrupts wake the thread that made it.
struct Waiting(Option<ThreadId>);

impl Waiting {
    fn new() -> Self {
        let id = thread::current();
        let mut waiting = WAITING.lock();
        // Without memory it is not woken, and looks for itself after a while, as it always does.
        if waiting.try_reserve(1).is_ok() {
            waiting.extend(id);
        }
        drop(waiting);
        Self(id)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.lock().retain(|id| Some(*id) != self.0);
    }
}

/// Finds the machine's devices and sets them up.
pub fn find() -> Devices {
    let mut devices = Devices::default();
    for function in pci::functions() {
        let Some((kind, transport)) = Transport::open(function) else { continue };
        match kind {
            DeviceType::Block => devices.add_disk(transport),
            DeviceType::Network => devices.add_nic(transport),
            _ => {}
        }
    }
    devices
}

// The drivers are large values: each is made in a frame of its own, which is gone afterwards.
impl Devices {
    #[inline(never)]
    fn add_disk(&mut self, transport: Transport) {
        match Disk::new(transport) {
            Ok(disk) => {
                info!("disk{}: {} KiB", self.disks.len(), disk.capacity() >> 10);
                self.disks.push(Arc::new(disk));
            }
            Err(error) => warning!("a disk does not start: {error}"),
        }
    }

    #[inline(never)]
    fn add_nic(&mut self, transport: Transport) {
        match Nic::new(transport) {
            Ok(nic) => {
                let address = nic.address();
                info!("nic{}: {address}", self.nics.len());
                if self.nics.is_empty() {
                    self.identity = address.0;
                }
                self.nics.push(Some(nic));
            }
            Err(error) => warning!("a network does not start: {error}"),
        }
    }
}
