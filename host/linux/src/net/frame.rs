//! A descriptor of which each read and write is a frame: a TAP, or a packet socket.

use super::failed;
use crate::transfer::{read, write};
use hypervisor::host::{HostError, NetPort};
use hypervisor::memory::GuestSlice;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

/// The guest's end.
pub struct FramePort {
    pub(super) fd: OwnedFd,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u16,
    /// Whether a read of nothing is the end, and not an empty datagram.
    pub(super) ends: bool,
}

impl NetPort for FramePort {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn send(&self, frame: GuestSlice<'_>) -> Result<(), HostError> {
        loop {
            match write(self.fd.as_fd(), frame) {
                Ok(count) if count == frame.len() => return Ok(()),
                // The queue is full: a network may lose frames.
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(()),
                Ok(_) => return Err(failed(Errno::IO, "sending a frame")),
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed(e, "sending a frame")),
            }
        }
    }

    fn receive(&self, to: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
        loop {
            match read(self.fd.as_fd(), to) {
                Ok(0) if self.ends && !to.is_empty() => {
                    return Err(failed(Errno::PIPE, "receiving a frame"));
                }
                Ok(0) | Err(Errno::AGAIN) => return Ok(None),
                Ok(count) => return Ok(Some(count)),
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed(e, "receiving a frame")),
            }
        }
    }
}
