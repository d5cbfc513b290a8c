//! virtio-net (VIRTIO 1.3 §5.1): one pair of queues, frames as the host's port takes and gives
//! them, without offloads.

use super::queue::{Buffers, Chain, Queue, QueueError, Segment};
use super::{Context, VirtioDevice};
use crate::host::{HostError, NetPort};
use crate::memory::{GuestMemory, GuestSlice, Perms};
use alloc::boxed::Box;
use alloc::vec;

const ID: u16 = 1;
const QUEUE_SIZE: u16 = 256;
/// The queue in which the guest receives.
pub const RECEIVE: usize = 0;

const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_STATUS: u64 = 1 << 16;

const LINK_UP: u16 = 1;
/// `struct virtio_net_hdr` of version 1; all zero but for `num_buffers`.
const HEADER: u32 = 12;
const ONE_BUFFER: [u8; HEADER as usize] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// Ethernet header and one VLAN tag.
const LINK_HEADER: u32 = 18;

/// A network device.
pub struct Net {
    port: Box<dyn NetPort>,
}

impl Net {
    /// The guest's side of a port.
    pub fn new(port: Box<dyn NetPort>) -> Self {
        Self { port }
    }

    fn longest_frame(&self) -> u32 {
        u32::from(self.port.mtu()) + LINK_HEADER
    }

    /// Takes what has arrived, as long as there is room for it.
    fn receive(&self, queue: &mut Queue, memory: &GuestMemory) -> Result<bool, QueueError> {
        let longest = usize::try_from(self.longest_frame()).unwrap_or(0);
        let mut bounce = vec![];
        queue.serve(memory, |chain| {
            let to = &chain.writable;
            if to.len() <= HEADER {
                return Err(QueueError::Request);
            }
            let frame = match direct(to, memory) {
                Some(room) => self.port.receive(room).unwrap_or(None),
                None => {
                    bounce.resize(longest, 0);
                    let slice = GuestSlice::from_host(&mut bounce);
                    let count = self.port.receive(slice).unwrap_or(None);
                    if let Some(count) = count {
                        to.write(memory, HEADER, &bounce[..count.min(longest)])?;
                    }
                    count
                }
            };
            // A port that is gone has no frames any more: the buffers stay.
            let Some(count) = frame else { return Ok(None) };
            to.write(memory, 0, &ONE_BUFFER)?;
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            Ok(Some(HEADER + count.min(to.len() - HEADER)))
        })
    }

    /// A frame that the host does not take is lost, as on a wire.
    fn send(&self, queue: &mut Queue, memory: &GuestMemory) -> Result<bool, QueueError> {
        let mut bounce = vec![];
        queue.serve(memory, |chain| {
            let frame = chain.readable.len().saturating_sub(HEADER);
            if frame > 0 && frame <= self.longest_frame() {
                let _lost: Option<HostError> = self.send_one(chain, memory, frame, &mut bounce)?;
            }
            Ok(Some(0))
        })
    }

    fn send_one(
        &self,
        chain: &Chain,
        memory: &GuestMemory,
        len: u32,
        bounce: &mut alloc::vec::Vec<u8>,
    ) -> Result<Option<HostError>, QueueError> {
        let mut parts = chain.readable.parts(memory, HEADER, len, Perms::READ);
        let first = parts.next().transpose()?;
        let sent = match first {
            Some(whole) if parts.next().is_none() => self.port.send(whole),
            _ => {
                bounce.resize(usize::try_from(len).unwrap_or(0), 0);
                chain.readable.read(memory, HEADER, bounce)?;
                self.port.send(GuestSlice::from_host(bounce))
            }
        };
        Ok(sent.err())
    }
}

/// The room for a frame, where it is in one piece.
fn direct<'a>(to: &Buffers, memory: &'a GuestMemory) -> Option<GuestSlice<'a>> {
    let room = to.len().checked_sub(HEADER)?;
    let at = match *to.segments() {
        [Segment { at, .. }] => at.checked_add(HEADER.into())?,
        [Segment { len: HEADER, .. }, Segment { at, .. }] => at,
        _ => return None,
    };
    memory.slice(at, room.into(), Perms::WRITE).ok()
}

impl VirtioDevice for Net {
    fn name(&self) -> &'static str {
        "virtio-net"
    }

    fn id(&self) -> u16 {
        ID
    }

    fn class(&self) -> [u8; 3] {
        [0x02, 0x00, 0x00]
    }

    fn features(&self) -> u64 {
        F_MTU | F_MAC | F_STATUS
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    /// `struct virtio_net_config`, up to `mtu`.
    fn read_config(&self, offset: usize, to: &mut [u8]) {
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.port.mac());
        config[6..8].copy_from_slice(&LINK_UP.to_le_bytes());
        config[10..].copy_from_slice(&self.port.mtu().to_le_bytes());
        super::copy_config(&config, offset, to);
    }

    fn process(
        &self,
        index: usize,
        queue: &mut Queue,
        context: &Context<'_>,
    ) -> Result<bool, QueueError> {
        match index {
            RECEIVE => self.receive(queue, context.memory),
            _ => self.send(queue, context.memory),
        }
    }
}
