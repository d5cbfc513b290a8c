//! A learning switch (IEEE 802.1D §7.7, 7.8, without spanning trees).
//!
//! A guest's own address always leads to its port, and a guest sends from no other address: what it
//! sends from another one is dropped, so that it cannot pass for a neighbour or for a gateway beyond
//! the uplink. A guest that is trusted with more ([`Switch::trust`]), such as one that routes or has
//! guests of its own, may send from any, but takes no address that the uplink has.
//!
//! Addresses beyond an uplink or a trusted guest are learned; a frame for one that is not known goes
//! to all ports.
//! The table of learned addresses has a fixed size: under a flood of addresses, frames go to more
//! ports than need be, and nothing grows.

use super::{HEADER, MAX_FRAME, Mac};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hypervisor::sync::Mutex;

const LEARNED: usize = 256;

/// Where frames for a port go. Called with the switch's lock held: it queues and returns.
pub trait Sink: Send + Sync {
    /// Takes a frame, or drops it.
    fn deliver(&self, frame: &[u8]);
}

/// A port's number in its switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortId(u32);

struct Port {
    id: PortId,
    own: Option<Mac>,
    trusted: bool,
    sink: Arc<dyn Sink>,
}

/// An address that was learned.
#[derive(Clone, Copy)]
struct Learned {
    mac: Mac,
    port: PortId,
    /// At an uplink.
    beyond: bool,
}

struct Inner {
    ports: Vec<Port>,
    learned: [Option<Learned>; LEARNED],
    next: u32,
}

/// The switch.
pub struct Switch {
    inner: Mutex<Inner>,
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

impl Switch {
    /// A switch without ports.
    pub const fn new() -> Self {
        let inner = Inner { ports: Vec::new(), learned: [None; LEARNED], next: 0 };
        Self { inner: Mutex::new(inner) }
    }

    /// Adds a port: a guest's, with the guest's address, or an uplink. `None` if a port has that
    /// address.
    pub fn connect(&self, own: Option<Mac>, sink: Arc<dyn Sink>) -> Option<PortId> {
        let mut inner = self.inner.lock();
        if own.is_some() && inner.ports.iter().any(|port| port.own == own) {
            return None;
        }
        inner.ports.try_reserve(1).ok()?;
        let id = PortId(inner.next);
        inner.next = inner.next.wrapping_add(1);
        inner.ports.push(Port { id, own, trusted: false, sink });
        Some(id)
    }

    /// Lets a guest send from any address.
    pub fn trust(&self, id: PortId) {
        let mut inner = self.inner.lock();
        if let Some(port) = inner.ports.iter_mut().find(|port| port.id == id) {
            port.trusted = true;
        }
    }

    /// Takes a port away, and what was learned there.
    pub fn disconnect(&self, id: PortId) {
        let mut inner = self.inner.lock();
        inner.ports.retain(|port| port.id != id);
        for entry in &mut inner.learned {
            *entry = entry.filter(|learned| learned.port != id);
        }
    }

    /// How many ports there are.
    pub fn ports(&self) -> usize {
        self.inner.lock().ports.len()
    }

    /// Takes a frame that came in at a port, and passes it on. One that is no whole frame, or that
    /// a guest sends from an address that it may not have, is dropped.
    pub fn send(&self, from: PortId, frame: &[u8]) {
        let Some((to, source)) = addresses(frame) else { return };
        let mut inner = self.inner.lock();
        if !inner.accepts(source, from) {
            return;
        }
        match inner.find(to) {
            Some(id) if id == from => {}
            Some(id) => {
                if let Some(port) = inner.ports.iter().find(|port| port.id == id) {
                    port.sink.deliver(frame);
                }
            }
            None => {
                for port in inner.ports.iter().filter(|port| port.id != from) {
                    port.sink.deliver(frame);
                }
            }
        }
    }
}

/// Destination and source.
fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    if !(HEADER..=MAX_FRAME).contains(&frame.len()) {
        return None;
    }
    Some((*frame.first_chunk()?, *frame.get(6..)?.first_chunk()?))
}

fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// FNV-1a: addresses differ in few bits.
fn place(mac: Mac) -> usize {
    let hash = mac
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    usize::from(hash.to_le_bytes()[1])
}

impl Inner {
    /// Whether a port may send from an address, which is learned where it is not a guest's own.
    fn accepts(&mut self, mac: Mac, from: PortId) -> bool {
        let Some(port) = self.ports.iter().find(|port| port.id == from) else { return false };
        let (beyond, own, trusted) = (port.own.is_none(), port.own == Some(mac), port.trusted);
        if own {
            return true;
        }
        if !beyond && !trusted {
            return false;
        }
        let known = self.learned[place(mac)].filter(|learned| learned.mac == mac);
        let uplinks = known.is_some_and(|learned| learned.beyond);
        let taken = self.ports.iter().any(|port| port.own == Some(mac)) || uplinks && !beyond;
        if !is_group(mac) && !taken {
            self.learned[place(mac)] = Some(Learned { mac, port: from, beyond });
        }
        // A bridge beyond the uplink may well send back what a guest has sent.
        beyond || !taken
    }

    /// The port that leads to an address; `None`: all of them.
    fn find(&self, mac: Mac) -> Option<PortId> {
        if is_group(mac) {
            return None;
        }
        if let Some(port) = self.ports.iter().find(|port| port.own == Some(mac)) {
            return Some(port.id);
        }
        self.learned[place(mac)].filter(|known| known.mac == mac).map(|known| known.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[derive(Default)]
    struct Count(Mutex<Vec<Vec<u8>>>);

    impl Sink for Count {
        fn deliver(&self, frame: &[u8]) {
            self.0.lock().push(frame.to_vec());
        }
    }

    struct Net {
        switch: Switch,
        sinks: Vec<Arc<Count>>,
        ports: Vec<PortId>,
    }

    const A: Mac = [2, 0, 0, 0, 0, 0xa];
    const B: Mac = [2, 0, 0, 0, 0, 0xb];
    const FAR: Mac = [0x52, 0x54, 0, 1, 2, 3];
    const ALL: Mac = [0xff; 6];

    impl Net {
        /// Two guests and an uplink.
        fn new() -> Self {
            let switch = Switch::new();
            let sinks: Vec<_> = (0..3).map(|_| Arc::new(Count::default())).collect();
            let own = [Some(A), Some(B), None];
            let connect = |(own, sink): (_, &Arc<Count>)| switch.connect(own, sink.clone());
            let ports = own.into_iter().zip(&sinks).map(|pair| connect(pair).unwrap()).collect();
            Self { switch, sinks, ports }
        }

        fn send(&self, from: usize, to: Mac, source: Mac) -> Vec<usize> {
            let mut frame = [to, source].concat();
            frame.extend([8, 0, 1]);
            self.switch.send(self.ports[from], &frame);
            self.sinks.iter().map(|sink| sink.0.lock().drain(..).count()).collect()
        }
    }

    #[test]
    fn frames_go_where_their_address_is() {
        let net = Net::new();
        assert_eq!(net.send(0, B, A), [0, 1, 0]);
        assert_eq!(net.send(0, ALL, A), [0, 1, 1]);
        assert_eq!(net.send(0, FAR, A), [0, 1, 1]);
        assert_eq!(net.send(2, A, FAR), [1, 0, 0]);
        assert_eq!(net.send(0, FAR, A), [0, 0, 1]);
        assert_eq!(net.send(2, FAR, FAR), [0, 0, 0]);
    }

    /// One frame to itself, which nobody else sees, was enough.
    #[test]
    fn an_address_beyond_the_uplink_cannot_be_taken_by_a_guest() {
        let net = Net::new();
        assert_eq!(net.send(2, A, FAR), [1, 0, 0]);
        assert_eq!(net.send(1, B, FAR), [0, 0, 0]);
        assert_eq!(net.send(0, FAR, A), [0, 0, 1]);
        // Nor by one that is trusted.
        net.switch.trust(net.ports[1]);
        assert_eq!(net.send(1, B, FAR), [0, 0, 0]);
        assert_eq!(net.send(0, FAR, A), [0, 0, 1]);
    }

    #[test]
    fn a_guest_sends_from_its_own_address_unless_it_is_trusted() {
        let net = Net::new();
        let behind = [2, 0, 0, 0, 1, 1];
        for source in [behind, A, ALL] {
            assert_eq!(net.send(1, ALL, source), [0, 0, 0]);
        }
        assert_eq!(net.send(1, ALL, B), [1, 0, 1]);
        net.switch.trust(net.ports[1]);
        assert_eq!(net.send(1, ALL, behind), [1, 0, 1]);
        assert_eq!(net.send(0, behind, A), [0, 1, 0]);
        assert_eq!(net.send(1, ALL, A), [0, 0, 0], "another guest's");
    }

    #[test]
    fn a_guests_address_cannot_be_taken_by_another() {
        let net = Net::new();
        net.send(1, ALL, A);
        net.send(2, ALL, A);
        assert_eq!(net.send(2, A, FAR), [1, 0, 0]);
        assert!(net.switch.connect(Some(A), Arc::new(Count::default())).is_none());
    }

    #[test]
    fn a_port_that_goes_is_forgotten() {
        let mut net = Net::new();
        net.send(2, ALL, FAR);
        net.switch.disconnect(net.ports[2]);
        assert_eq!(net.send(0, FAR, A), [0, 1, 0]);
        net.switch.disconnect(net.ports[1]);
        assert_eq!(net.send(0, B, A), [0, 0, 0]);
        let sink = net.sinks[1].clone();
        net.ports[1] = net.switch.connect(Some(B), sink).unwrap();
        assert_eq!(net.send(0, B, A), [0, 1, 0]);
        assert_eq!(net.switch.ports(), 2);
    }

    #[test]
    fn what_is_no_frame_is_dropped_and_floods_of_addresses_end() {
        let net = Net::new();
        for frame in [&[][..], &[0xff; 13], &vec![0xff; MAX_FRAME + 1]] {
            net.switch.send(net.ports[0], frame);
        }
        assert!(net.sinks.iter().all(|sink| sink.0.lock().is_empty()));
        net.switch.trust(net.ports[1]);
        for number in 0..5000u32 {
            let [_, a, b, c] = number.to_be_bytes();
            net.send(1, ALL, [2, 9, 9, a, b, c]);
        }
        assert_eq!(net.send(2, A, FAR), [1, 0, 0]);
        // A group address is never learned.
        net.send(1, ALL, [3, 0, 0, 0, 0, 0]);
        assert_eq!(net.send(0, [3, 0, 0, 0, 0, 0], A), [0, 1, 1]);
    }
}
