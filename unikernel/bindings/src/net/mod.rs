//! Networks: hypercalls 6 and 7 of Solo5's hvt ABI, or the network ring where the host offers one.
//!
//! Order of calls: [`Net::acquire`] with a name from `manifest!`, then frames in and out. Frames
//! are whole Ethernet frames without a check sequence.

#![allow(unsafe_code)]

mod ring;

use crate::device::{self, Kind};
use crate::raw::{self, NetIo, number};
use crate::{Error, Result};

/// Bytes of an Ethernet header, which the MTU does not count.
pub const ETHERNET_HEADER: usize = 14;

/// A network.
#[derive(Debug)]
pub struct Net {
    handle: u8,
    mac: [u8; 6],
    mtu: u16,
    ring: Option<ring::Ring>,
}

impl Net {
    /// The network with this name in the manifest. It uses the network ring if the host has one.
    pub fn acquire(name: &str) -> Result<Self> {
        let mut net = Self::acquire_without_ring(name)?;
        net.ring = ring::Ring::of_host();
        Ok(net)
    }

    /// As [`Net::acquire`], by hypercalls only.
    pub fn acquire_without_ring(name: &str) -> Result<Self> {
        let (handle, entry) = device::find(Kind::Net, name)?;
        let (mac, mtu) = entry.net();
        Ok(Self { handle, mac, mtu, ring: None })
    }

    /// Its hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Largest payload of a frame in bytes, without the Ethernet header. Tenders that leave it at 0
    /// mean 1,500.
    pub fn mtu(&self) -> usize {
        if self.mtu == 0 { 1500 } else { usize::from(self.mtu) }
    }

    /// Longest frame in bytes.
    pub fn frame_size(&self) -> usize {
        self.mtu() + ETHERNET_HEADER
    }

    /// Whether frames go through the network ring.
    pub fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Index in the manifest.
    pub(crate) fn handle(&self) -> u8 {
        self.handle
    }

    /// Sends a frame. Through the ring, its fate is not known.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        if frame.is_empty() || frame.len() > self.frame_size() {
            return Err(Error::InvalidArgument);
        }
        match &mut self.ring {
            Some(ring) if frame.len() <= ring::FRAME_MAX => {
                ring.send(u32::from(self.handle), frame);
                Ok(())
            }
            _ => self.send_by_hypercall(frame),
        }
    }

    /// Receives a frame into `buffer` and returns its length; [`Error::WouldBlock`] if there is
    /// none. A buffer shorter than [`Net::frame_size`] loses the rest of a longer frame.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match &mut self.ring {
            Some(ring) => ring.receive(u32::from(self.handle), buffer),
            None => self.receive_by_hypercall(buffer),
        }
    }

    fn send_by_hypercall(&self, frame: &[u8]) -> Result<()> {
        let mut io = self.io(frame.as_ptr().expose_provenance(), frame.len());
        // SAFETY: the frame is ours and as long as the argument says; the host only reads it.
        unsafe { raw::hypercall::<{ number::NET_WRITE }, _>(&raw mut io) };
        Error::check(io.ret)
    }

    fn receive_by_hypercall(&self, buffer: &mut [u8]) -> Result<usize> {
        let mut io = self.io(buffer.as_mut_ptr().expose_provenance(), buffer.len());
        // SAFETY: the buffer is ours, exclusive, and as long as the argument says.
        unsafe { raw::hypercall::<{ number::NET_READ }, _>(&raw mut io) };
        Error::check(io.ret)?;
        received(io.len, buffer.len())
    }

    fn io(&self, data: usize, len: usize) -> NetIo {
        NetIo { handle: u64::from(self.handle), data: data as u64, len: len as u64, ret: 0 }
    }
}

/// A host that claims more than the buffer held is broken.
fn received(len: u64, room: usize) -> Result<usize> {
    let len = usize::try_from(len).map_err(|_| Error::Unspecified)?;
    if len <= room { Ok(len) } else { Err(Error::Unspecified) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_buffer_is_the_hosts_fault() {
        assert_eq!(received(60, 60), Ok(60));
        assert_eq!(received(61, 60), Err(Error::Unspecified));
        assert_eq!(received(u64::MAX, 60), Err(Error::Unspecified));
    }
}
