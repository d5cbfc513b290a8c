//! Frames in a stream socket, as QEMU's and passt's: each after its length in 32 bits, big-endian.
//!
//! Nothing here blocks. What has arrived beyond a frame waits in a buffer, and so does the rest of
//! a frame of which the kernel has taken only a part; a frame that finds the queue full is lost,
//! as on any network. Both buffers are made at the start.

#![allow(unsafe_code)]

use super::failed;
use crate::transfer::{read_own, write_parts};
use crate::wait::{Buffered, Nudge};
use core::ops::Range;
use hypervisor::host::{HostError, NetPort};
use hypervisor::memory::GuestSlice;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use spin::Mutex;
use std::sync::{Arc, OnceLock};

/// Largest frame either way: passt's own limit, with room for a VLAN tag.
const FRAME_MAX: usize = 65_535 + 18;
const LENGTH: usize = 4;

/// Bytes on their way: `bytes[range]`.
struct Buffer {
    bytes: Box<[u8]>,
    range: Range<usize>,
}

/// The guest's end of the stream.
pub struct StreamPort {
    socket: OwnedFd,
    mac: [u8; 6],
    mtu: u16,
    received: Mutex<Buffer>,
    unsent: Mutex<Buffer>,
    nudge: OnceLock<Arc<Nudge>>,
}

impl StreamPort {
    /// Over a connected socket that does not block.
    pub(super) fn new(socket: OwnedFd, mac: [u8; 6], mtu: u16) -> Self {
        Self {
            socket,
            mac,
            mtu,
            received: Mutex::new(Buffer::new(2 * (FRAME_MAX + LENGTH))),
            unsent: Mutex::new(Buffer::new(FRAME_MAX + LENGTH)),
            nudge: OnceLock::new(),
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn send_frame(&self, frame: GuestSlice<'_>) -> Result<(), Errno> {
        if frame.len() > FRAME_MAX {
            return Err(Errno::MSGSIZE);
        }
        let length = u32::try_from(frame.len()).map_err(|_| Errno::MSGSIZE)?.to_be_bytes();
        let mut unsent = self.unsent.lock();
        if !unsent.drain(self.socket.as_fd())? {
            return Ok(());
        }
        let sent = or_none(write_parts(self.socket.as_fd(), &length, Some(frame)))?.unwrap_or(0);
        if sent > 0 {
            // A frame that has begun has to be finished, or the stream is out of step.
            unsent.fill_with(&length[sent.min(LENGTH)..], frame, sent.saturating_sub(LENGTH));
        }
        Ok(())
    }

    fn take_frame(&self, to: GuestSlice<'_>) -> Result<Option<usize>, Errno> {
        let mut received = self.received.lock();
        loop {
            if let Some(frame) = received.frame()? {
                received.range.start = frame.end;
                let count = to.copy_from(&received.bytes[frame]);
                if received.frame().is_ok_and(|next| next.is_some()) {
                    // The kernel does not know of that one: who waits has to look again.
                    self.nudge.get().inspect(|nudge| nudge.nudge());
                }
                return Ok(Some(count));
            }
            if !received.read_more(self.socket.as_fd())? {
                return Ok(None);
            }
        }
    }
}

/// `None` where the kernel cannot take or give anything at the moment.
fn or_none(result: Result<usize, Errno>) -> Result<Option<usize>, Errno> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Ok(None),
        Err(e) => Err(e),
    }
}

impl Buffer {
    fn new(size: usize) -> Self {
        Self { bytes: vec![0; size].into_boxed_slice(), range: 0..0 }
    }

    /// The first frame, if it is there whole. A length that no frame has means that the other
    /// side is out of step.
    fn frame(&self) -> Result<Option<Range<usize>>, Errno> {
        let Some((length, rest)) = self.bytes[self.range.clone()].split_first_chunk::<LENGTH>()
        else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > FRAME_MAX {
            return Err(Errno::PROTO);
        }
        let start = self.range.start + LENGTH;
        Ok((length <= rest.len()).then_some(start..start + length))
    }

    /// Reads what there is; `Ok(false)` if there is nothing at the moment.
    fn read_more(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Errno> {
        // There is no whole frame, so less than half of the buffer has to move.
        self.bytes.copy_within(self.range.clone(), 0);
        self.range = 0..self.range.len();
        match or_none(read_own(socket, &mut self.bytes[self.range.end..]))? {
            Some(0) => Err(Errno::PIPE),
            Some(count) => {
                self.range.end += count;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Keeps `head` and what is in `body` from `offset` on. The buffer must be empty; a frame and
    /// its length fit.
    fn fill_with(&mut self, head: &[u8], body: GuestSlice<'_>, offset: usize) {
        self.range = 0..head.len();
        self.bytes[..head.len()].copy_from_slice(head);
        if let Some(rest) = body.part(offset, body.len().saturating_sub(offset)) {
            self.range.end += rest.copy_to(&mut self.bytes[head.len()..]);
        }
    }

    /// Sends what is kept. Whether nothing is left.
    fn drain(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Errno> {
        while !self.range.is_empty() {
            match or_none(write_parts(socket, &self.bytes[self.range.clone()], None))? {
                Some(count) => self.range.start += count,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl NetPort for StreamPort {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn send(&self, frame: GuestSlice<'_>) -> Result<(), HostError> {
        self.send_frame(frame).map_err(|e| failed(e, "sending a frame"))
    }

    fn receive(&self, to: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
        self.take_frame(to).map_err(|e| failed(e, "receiving a frame"))
    }
}

impl Buffered for StreamPort {
    fn has_frame(&self) -> bool {
        // An error counts: the reception will report it.
        !matches!(self.received.lock().frame(), Ok(None))
    }

    fn has_unsent(&self) -> bool {
        // So does this one: the socket is then readable.
        !self.unsent.lock().drain(self.socket.as_fd()).unwrap_or(true)
    }

    fn nudge_with(&self, nudge: Arc<Nudge>) {
        let _ = self.nudge.set(nudge);
    }
}
