//! A guest's port: a queue of frames that have arrived, and its switch to send to.

use super::ring::{Ring, Taken};
use super::switch::{PortId, Sink, Switch};
use super::{HEADER, MAX_FRAME, MTU, Mac};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use hypervisor::host::{HostError, HostErrorKind, NetPort};
use hypervisor::memory::GuestSlice;
use hypervisor::sync::Mutex;

/// Whom a queue wakes when a frame has arrived. Called with locks held: it may not wait.
pub trait Waker: Send + Sync {
    /// Wakes the guest's thread.
    fn wake(&self);
}

/// Frames for a guest.
pub struct Queue {
    frames: Mutex<Ring>,
    /// Whether there are any, to look at without the lock.
    filled: AtomicBool,
    waker: Arc<dyn Waker>,
}

impl Queue {
    /// An empty one; `None` where there is no memory.
    pub fn new(waker: Arc<dyn Waker>) -> Option<Self> {
        Some(Self { frames: Mutex::new(Ring::new()?), filled: AtomicBool::new(false), waker })
    }

    /// Whether a frame waits.
    pub fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    fn take(&self, to: &mut Taken) -> Option<usize> {
        if !self.is_filled() {
            return None;
        }
        let mut frames = self.frames.lock();
        let length = frames.pop(to);
        self.filled.store(!frames.is_empty(), Ordering::Release);
        length
    }
}

impl Sink for Queue {
    fn deliver(&self, frame: &[u8]) {
        let mut frames = self.frames.lock();
        if !frames.push(frame) {
            return;
        }
        self.filled.store(true, Ordering::Release);
        drop(frames);
        self.waker.wake();
    }
}

/// A guest's end of a network.
pub struct Port {
    switch: Arc<Switch>,
    id: PortId,
    mac: Mac,
    queue: Arc<Queue>,
}

impl Port {
    /// Connects a guest.
    ///
    /// # Errors
    /// If there is another with this address, or no memory for what it will receive.
    pub fn connect(
        switch: Arc<Switch>,
        mac: Mac,
        waker: Arc<dyn Waker>,
    ) -> Result<Self, HostError> {
        let full = "this machine has not enough free memory for another network port";
        let full = HostError::new(HostErrorKind::Other, full);
        let taken = "another VM on this network has that hardware address: choose another";
        let taken = HostError::new(HostErrorKind::Denied, taken);
        let queue = Arc::new(Queue::new(waker).ok_or(full)?);
        let id = switch.connect(Some(mac), queue.clone()).ok_or(taken)?;
        Ok(Self { switch, id, mac, queue })
    }

    /// Lets the guest send from any address ([`Switch::trust`]).
    pub fn trust(&self) {
        self.switch.trust(self.id);
    }

    /// Its queue, to wait for.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl NetPort for Port {
    fn mac(&self) -> Mac {
        self.mac
    }

    fn mtu(&self) -> u16 {
        MTU
    }

    fn send(&self, frame: GuestSlice<'_>) -> Result<(), HostError> {
        if !(HEADER..=HEADER + usize::from(MTU)).contains(&frame.len()) {
            let what = "network send: a frame has 14 to 1514 bytes";
            return Err(HostError::new(HostErrorKind::Other, what));
        }
        let mut copy = [0; HEADER + MTU as usize];
        let copy = &mut copy[..frame.len()];
        frame.copy_to(copy);
        self.switch.send(self.id, copy);
        Ok(())
    }

    fn receive(&self, to: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
        // Copied twice: the guest's page may have to be made, which takes longer than a lock is held.
        let mut frame = [0; MAX_FRAME];
        Ok(self.queue.take(&mut frame).map(|length| to.copy_from(&frame[..length])))
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.switch.disconnect(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU32;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Waker for Woken {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const A: Mac = [2, 0, 0, 0, 0, 0xa];
    const B: Mac = [2, 0, 0, 0, 0, 0xb];

    fn send(port: &Port, to: Mac, length: usize) -> Result<(), HostError> {
        let mut frame = [to, port.mac()].concat();
        frame.resize(length, 7);
        port.send(GuestSlice::from_host(&mut frame))
    }

    #[test]
    fn frames_arrive_in_order_and_wake() {
        let switch = Arc::new(Switch::new());
        let woken = Arc::new(Woken::default());
        let a = Port::connect(switch.clone(), A, Arc::new(Woken::default())).unwrap();
        let b = Port::connect(switch.clone(), B, woken.clone()).unwrap();
        assert!(Port::connect(switch, B, woken.clone()).is_err());
        for length in [14, 60, 1514] {
            send(&a, B, length).unwrap();
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 3);
        let mut buffer = [0; 1514];
        for length in [14, 60, 1514] {
            assert!(b.queue().is_filled());
            assert_eq!(b.receive(GuestSlice::from_host(&mut buffer)), Ok(Some(length)));
        }
        assert!(!b.queue().is_filled());
        assert_eq!(b.receive(GuestSlice::from_host(&mut buffer)), Ok(None));
        assert!(send(&a, B, 13).is_err() && send(&a, B, 1515).is_err());
    }

    #[test]
    fn a_queue_is_bounded_and_a_gone_port_is_no_harm() {
        let switch = Arc::new(Switch::new());
        let a = Port::connect(switch.clone(), A, Arc::new(Woken::default())).unwrap();
        let b = Port::connect(switch.clone(), B, Arc::new(Woken::default())).unwrap();
        for _ in 0..10_000 {
            send(&a, B, 60).unwrap();
        }
        let mut small = [0; 20];
        let mut taken = 0;
        while b.receive(GuestSlice::from_host(&mut small)).unwrap().is_some() {
            taken += 1;
        }
        assert!((100..10_000).contains(&taken), "{taken}");
        drop(b);
        assert_eq!(switch.ports(), 1);
        assert!(send(&a, B, 60).is_ok());
    }
}
