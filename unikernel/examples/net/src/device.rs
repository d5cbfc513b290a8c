//! smoltcp's view of a unikernel's network.

use alloc::{vec, vec::Vec};
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use unikernel::{Error, Net};

/// A network with one buffer for each direction.
pub struct Port {
    net: Net,
    received: Vec<u8>,
    sent: Vec<u8>,
    gone: bool,
}

/// A received frame.
pub struct RxToken<'a>(&'a [u8]);

/// The right to send a frame.
pub struct TxToken<'a> {
    net: &'a mut Net,
    buffer: &'a mut [u8],
}

impl Port {
    /// Wraps a network.
    pub fn new(net: Net) -> Self {
        let size = net.frame_size();
        Self { net, received: vec![0; size], sent: vec![0; size], gone: false }
    }

    /// Whether the host can no longer receive from it.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Its hardware address.
    pub fn mac(&self) -> [u8; 6] {
        self.net.mac()
    }
}

impl Device for Port {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        let received = self.net.receive(&mut self.received);
        self.gone |= received.is_err_and(|error| error != Error::WouldBlock);
        let len = received.ok()?;
        let tx = TxToken { net: &mut self.net, buffer: &mut self.sent };
        Some((RxToken(&self.received[..len]), tx))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        Some(TxToken { net: &mut self.net, buffer: &mut self.sent })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.net.frame_size();
        capabilities
    }
}

impl smoltcp::phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl smoltcp::phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let frame = &mut self.buffer[..len];
        let result = f(frame);
        // A frame that the host refuses is lost, as on any wire; the layers above send it again.
        let _ = self.net.send(frame);
        result
    }
}
