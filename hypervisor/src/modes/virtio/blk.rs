//! virtio-blk (VIRTIO 1.3 §5.2): reads, writes, flushes, and says its name.
//!
//! Requests are done one after the other, each whole before it is given back, so a flush covers
//! every write that the driver has seen done, as §5.2.6.2 wants it.

use super::queue::{Buffers, Chain, Queue, QueueError};
use super::{Context, VirtioDevice};
use crate::host::{BlockStore, HostError, Pieces};
use crate::memory::{GuestMemory, GuestSlice, MemoryError, Perms};
use alloc::boxed::Box;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const ID: u16 = 2;
const SECTOR: u64 = 512;
const QUEUE_SIZE: u16 = 128;
/// Header and status need a descriptor each.
const SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
const SEGMENT_SIZE: u32 = 1 << 20;
/// The longest that [`SEGMENTS`] and [`SEGMENT_SIZE`] allow.
const MAX_DATA: u32 = SEGMENTS * SEGMENT_SIZE;

const F_SIZE_MAX: u64 = 1 << 1;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;

const S_OK: u8 = 0;
const S_IOERR: u8 = 1;
const S_UNSUPP: u8 = 2;

/// Length of what a disk says its name is.
pub const NAME: usize = 20;

/// `struct virtio_blk_req` before its data.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

const HEADER: u32 = 16;

/// A disk.
pub struct Blk {
    store: Box<dyn BlockStore>,
    read_only: bool,
    name: [u8; NAME],
}

impl Blk {
    /// A disk that is kept in `store`. What is beyond its last whole sector is not seen.
    pub fn new(store: Box<dyn BlockStore>, read_only: bool, name: [u8; NAME]) -> Self {
        Self { store, read_only, name }
    }

    fn sectors(&self) -> u64 {
        self.store.capacity() / SECTOR
    }

    /// Does one request; returns how many bytes it has written, its status among them.
    fn request(&self, chain: &Chain, memory: &GuestMemory) -> Result<u32, QueueError> {
        let mut header = [0; HEADER as usize];
        let whole = chain.readable.read(memory, 0, &mut header)? == header.len();
        let (true, Some(room)) = (whole, chain.writable.len().checked_sub(1)) else {
            return Err(QueueError::Request);
        };
        let header: Header = zerocopy::transmute!(header);
        let (status, written) = match self.execute(&header, chain, room, memory) {
            Ok(written) => (S_OK, written),
            Err(Failure::Unsupported) => (S_UNSUPP, 0),
            Err(Failure::Error) => (S_IOERR, 0),
        };
        chain.writable.write(memory, room, &[status])?;
        // What lies between must count as written, or the driver would not look at the status.
        Ok(if status == S_OK && written == room { room + 1 } else { chain.writable.len() })
    }

    /// `room` is the length of what can be written before the status.
    fn execute(
        &self,
        header: &Header,
        chain: &Chain,
        room: u32,
        memory: &GuestMemory,
    ) -> Result<u32, Failure> {
        match header.kind.get() {
            T_IN => {
                let offset = self.place(header.sector.get(), room)?;
                let parts = chain.writable.parts(memory, 0, room, Perms::WRITE);
                all_of(parts, |pieces| self.store.read_pieces(offset, room.into(), pieces))?;
                Ok(room)
            }
            T_OUT => self.write(header.sector.get(), &chain.readable, memory).map(|()| 0),
            T_FLUSH => self.store.flush().map(|()| 0).map_err(|_| Failure::Error),
            T_GET_ID => {
                let size = self.name.len().min(usize::try_from(room).unwrap_or(0));
                let count = chain.writable.write(memory, 0, &self.name[..size])?;
                Ok(u32::try_from(count).unwrap_or(0))
            }
            _ => Err(Failure::Unsupported),
        }
    }

    fn write(&self, sector: u64, from: &Buffers, memory: &GuestMemory) -> Result<(), Failure> {
        if self.read_only {
            return Err(Failure::Error);
        }
        let len = from.len().saturating_sub(HEADER);
        let offset = self.place(sector, len)?;
        let parts = from.parts(memory, HEADER, len, Perms::READ);
        all_of(parts, |pieces| self.store.write_pieces(offset, len.into(), pieces))
    }

    /// The offset of a sector from which `len` bytes, whole sectors, are on the disk.
    fn place(&self, sector: u64, len: u32) -> Result<u64, Failure> {
        let len = u64::from(len).min(u64::from(MAX_DATA) + SECTOR);
        let end = sector.checked_add(len / SECTOR).ok_or(Failure::Error)?;
        if !len.is_multiple_of(SECTOR) || len > u64::from(MAX_DATA) || end > self.sectors() {
            return Err(Failure::Error);
        }
        sector.checked_mul(SECTOR).ok_or(Failure::Error)
    }
}

/// Hands over the parts that are memory, and fails if there was one that is not.
fn all_of<'a>(
    parts: impl Iterator<Item = Result<GuestSlice<'a>, MemoryError>>,
    transfer: impl FnOnce(Pieces<'_, '_>) -> Result<(), HostError>,
) -> Result<(), Failure> {
    let mut all = Ok(());
    let mut good = parts.map_while(|part| part.map_err(|error| all = Err(error)).ok());
    let done = transfer(&mut good);
    all?;
    done.map_err(|_| Failure::Error)
}

/// Why a request was not done.
enum Failure {
    Unsupported,
    Error,
}

impl From<MemoryError> for Failure {
    fn from(_: MemoryError) -> Self {
        Self::Error
    }
}

impl VirtioDevice for Blk {
    fn name(&self) -> &'static str {
        "virtio-blk"
    }

    fn id(&self) -> u16 {
        ID
    }

    fn class(&self) -> [u8; 3] {
        [0x01, 0x00, 0x00]
    }

    fn features(&self) -> u64 {
        let read_only = if self.read_only { F_RO } else { 0 };
        F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | read_only
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    /// `struct virtio_blk_config`, up to `blk_size`.
    fn read_config(&self, offset: usize, to: &mut [u8]) {
        let mut config = [0; 24];
        config[..8].copy_from_slice(&self.sectors().to_le_bytes());
        config[8..12].copy_from_slice(&SEGMENT_SIZE.to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS.to_le_bytes());
        config[20..].copy_from_slice(&512u32.to_le_bytes());
        super::copy_config(&config, offset, to);
    }

    fn process(
        &self,
        _: usize,
        queue: &mut Queue,
        context: &Context<'_>,
    ) -> Result<bool, QueueError> {
        queue.serve(context.memory, |chain| self.request(chain, context.memory).map(Some))
    }
}
