//! A virtio disk of the machine, shared out in parts.
//!
//! One request is under way at a time; the thread that made it waits parked, and others for their
//! turn, which comes after at most one bufferful of each that was there before. Data goes through a
//! buffer of the disk's own: the device sees no guest memory.

use super::Waiting;
use super::dma::Dma;
use super::transport::Transport;
use crate::{memory, thread, time};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use host_baremetal::disk::{self, DiskError, Part, SECTOR};
use host_baremetal::sched::ThreadId;
use host_baremetal::staging::{self, Staged};
use host_baremetal::turns::Turns;
use hypervisor::host::{BlockStore, HostError, HostErrorKind, Pieces};
use hypervisor::memory::GuestSlice;
use hypervisor::sync::Mutex;
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};

/// The buffer is a frame of this order: 64 KiB.
const ORDER: u8 = 4;
const BUFFER: usize = 4096 << ORDER;
/// A device that does not answer for so long is given up, in nanoseconds.
const PATIENCE: u64 = 30_000_000_000;
/// How often a device that does not interrupt is looked at, and another one in case.
const ASK: u64 = 200_000;
const LOOK: u64 = 100_000_000;

struct Device {
    driver: VirtIOBlk<Dma, Transport>,
    request: Box<BlkReq>,
    response: Box<BlkResp>,
    buffer: &'static mut [u8],
    /// It did not answer: the buffer may still be its.
    lost: bool,
}

/// A disk.
pub struct Disk {
    device: Mutex<Device>,
    /// Threads take turns; what is no thread uses no disk.
    turns: Mutex<Turns<Option<ThreadId>>>,
    capacity: u64,
    interrupts: bool,
    /// What guests have of it.
    shares: Mutex<Vec<Range<u64>>>,
}

/// What is to be done with the buffer's first bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

impl Disk {
    /// Sets a disk up.
    pub fn new(transport: Transport) -> Result<Self, virtio_drivers::Error> {
        let interrupts = transport.interrupts();
        let mut driver = VirtIOBlk::new(transport)?;
        driver.enable_interrupts();
        let capacity = driver.capacity().saturating_mul(SECTOR);
        let frame = memory::alloc(ORDER).ok_or(virtio_drivers::Error::DmaError)?;
        // SAFETY: the frame is this disk's, for ever.
        let buffer = unsafe { core::slice::from_raw_parts_mut(memory::window(frame), BUFFER) };
        let (request, response) = Default::default();
        let device = Device { driver, request, response, buffer, lost: false };
        let (device, turns) = (Mutex::new(device), Mutex::default());
        Ok(Self { device, turns, capacity, interrupts, shares: Mutex::default() })
    }

    /// Bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// A part of it, which is no other guest's.
    pub fn share(self: &Arc<Self>, part: Part) -> Result<Box<dyn BlockStore>, HostError> {
        let range = disk::find(part, self.capacity, &mut |sector, to| {
            let mut piece = core::iter::once(GuestSlice::from_host(to));
            self.read(sector * SECTOR, SECTOR, &mut piece).is_ok()
        });
        let range = range.map_err(words)?;
        let mut shares = self.shares.lock();
        if shares.iter().any(|other| other.start < range.end && range.start < other.end) {
            let what = "that part of the disk is, or overlaps, another VM's: stop and destroy it";
            return Err(HostError::new(HostErrorKind::Denied, what));
        }
        shares.push(range.clone());
        drop(shares);
        Ok(Box::new(Share { disk: self.clone(), range }))
    }

    /// Waits for this thread's turn; it ends with the guard.
    fn turn(&self) -> MyTurn<'_> {
        self.begin_turn();
        MyTurn(self)
    }

    fn begin_turn(&self) {
        let me = thread::current();
        loop {
            let mine = self.turns.lock().ask(me);
            if mine {
                return;
            }
            thread::park(Some(time::now() + LOOK));
        }
    }

    fn end_turn(&self) {
        let next = self.turns.lock().end();
        if let Some(next) = next.flatten() {
            thread::unpark(next);
        }
    }

    fn read(&self, at: u64, len: u64, to: Pieces<'_, '_>) -> Result<(), HostError> {
        staging::read(&self.turn(), at, len, to)
    }

    fn write(&self, at: u64, len: u64, from: Pieces<'_, '_>) -> Result<(), HostError> {
        staging::write(&self.turn(), at, len, from)
    }

    /// One request for the buffer's first bytes.
    fn request(&self, sector: u64, count: usize, way: Way) -> Result<(), HostError> {
        let failed = |_| HostError::new(HostErrorKind::Io, "the machine's disk has failed");
        let waiting = Waiting::new();
        let token = self.device.lock().begin(sector, count, way).map_err(failed)?;
        let end = time::now().saturating_add(PATIENCE);
        let look = if self.interrupts { LOOK } else { ASK };
        loop {
            let mut device = self.device.lock();
            if device.driver.peek_used() == Some(token) {
                drop(waiting);
                return device.complete(token, count, way).map_err(failed);
            }
            let now = time::now();
            if now >= end {
                device.lost = true;
                return Err(HostError::new(HostErrorKind::Io, "the machine's disk hangs"));
            }
            drop(device);
            thread::park(Some((now + look).min(end)));
        }
    }
}

impl Device {
    fn begin(&mut self, sector: u64, count: usize, way: Way) -> virtio_drivers::Result<u16> {
        if self.lost {
            return Err(virtio_drivers::Error::IoError);
        }
        let sector = usize::try_from(sector).map_err(|_| virtio_drivers::Error::InvalidParam)?;
        let buffer = &mut self.buffer[..count];
        let (request, response) = (&mut *self.request, &mut *self.response);
        // SAFETY: nobody touches the three until `complete`: it is this thread's turn, and a
        // device that does not answer keeps them.
        unsafe {
            match way {
                Way::Read => self.driver.read_blocks_nb(sector, request, buffer, response),
                Way::Write => self.driver.write_blocks_nb(sector, request, buffer, response),
            }
        }
    }

    fn complete(&mut self, token: u16, count: usize, way: Way) -> virtio_drivers::Result<()> {
        let buffer = &mut self.buffer[..count];
        let (request, response) = (&*self.request, &mut *self.response);
        // SAFETY: the same three as in `begin`.
        unsafe {
            match way {
                Way::Read => self.driver.complete_read_blocks(token, request, buffer, response),
                Way::Write => self.driver.complete_write_blocks(token, request, buffer, response),
            }
        }
    }
}

/// A thread's turn at a disk.
struct MyTurn<'a>(&'a Disk);

impl Staged for MyTurn<'_> {
    const SIZE: usize = BUFFER;

    fn pause(&self) {
        let wanted = self.0.turns.lock().is_wanted();
        if wanted {
            self.0.end_turn();
            self.0.begin_turn();
        }
    }

    fn fill(&self, at: usize, from: GuestSlice<'_>) {
        from.copy_to(&mut self.0.device.lock().buffer[at..]);
    }

    fn take(&self, at: usize, to: GuestSlice<'_>) {
        to.copy_from(&self.0.device.lock().buffer[at..]);
    }

    fn read(&self, sector: u64, count: usize) -> Result<(), HostError> {
        self.0.request(sector, count, Way::Read)
    }

    fn write(&self, sector: u64, count: usize) -> Result<(), HostError> {
        self.0.request(sector, count, Way::Write)
    }
}

impl Drop for MyTurn<'_> {
    fn drop(&mut self) {
        self.0.end_turn();
    }
}

/// The same words, as a host's error has them.
fn words(error: DiskError) -> HostError {
    let what = match error {
        DiskError::Name => "a part of a disk is diskN, diskN:PARTITION or diskN:START+LENGTH",
        DiskError::NoTable => "the disk has no partition table",
        DiskError::NoPartition => "the disk has no partition of that number",
        DiskError::TooLong => "that part ends behind the end of the disk",
        DiskError::Unreadable => "the disk's partition table cannot be read",
    };
    HostError::new(HostErrorKind::Other, what)
}

/// A guest's part of a disk.
struct Share {
    disk: Arc<Disk>,
    range: Range<u64>,
}

impl Share {
    /// Where an access lies in the disk. The caller has checked it; so does this.
    fn place(&self, offset: u64, length: u64) -> Result<u64, HostError> {
        let outside = HostError::new(HostErrorKind::Other, "outside of the part of the disk");
        let at = self.range.start.checked_add(offset).ok_or(outside)?;
        let end = at.checked_add(length).filter(|end| *end <= self.range.end);
        end.map(|_| at).ok_or(outside)
    }
}

impl BlockStore for Share {
    fn capacity(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<(), HostError> {
        self.read_pieces(offset, to.len() as u64, &mut core::iter::once(to))
    }

    fn write_at(&self, offset: u64, from: GuestSlice<'_>) -> Result<(), HostError> {
        self.write_pieces(offset, from.len() as u64, &mut core::iter::once(from))
    }

    fn read_pieces(&self, offset: u64, len: u64, to: Pieces<'_, '_>) -> Result<(), HostError> {
        self.disk.read(self.place(offset, len)?, len, to)
    }

    fn write_pieces(&self, offset: u64, len: u64, from: Pieces<'_, '_>) -> Result<(), HostError> {
        self.disk.write(self.place(offset, len)?, len, from)
    }

    fn flush(&self) -> Result<(), HostError> {
        let _turn = self.disk.turn();
        let mut device = self.disk.device.lock();
        let failed = HostError::new(HostErrorKind::Io, "the machine's disk has failed");
        if device.lost {
            return Err(failed);
        }
        device.driver.flush().map_err(|_| failed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.disk.shares.lock().retain(|range| *range != self.range);
    }
}
