//! A virtio network of the machine, as the uplink of a switch: a thread of its own moves frames
//! between the two.

use super::Waiting;
use super::dma::Dma;
use super::transport::Transport;
use crate::log::warning;
use crate::{memory, thread, time};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use host_baremetal::cpus::CpuSet;
use host_baremetal::net::MAX_FRAME;
use host_baremetal::net::ring::Ring;
use host_baremetal::net::switch::{PortId, Sink, Switch};
use host_baremetal::sched::ThreadId;
use hypervisor::sync::Mutex;
use virtio_drivers::device::net::VirtIONetRaw;

/// Frames in each direction that are under way.
const QUEUE: usize = 64;
/// Bytes of a buffer: header and frame. Two lie in a page.
const BUFFER: usize = 2048;
/// How often a device that does not interrupt is looked at, in nanoseconds, and another in case.
const ASK: u64 = 1_000_000;
const LOOK: u64 = 1_000_000_000;

type Driver = VirtIONetRaw<Dma, Transport, QUEUE>;
type Buffer = &'static mut [u8];

/// A network.
pub struct Nic {
    driver: Box<Driver>,
    interrupts: bool,
    /// Buffers that the device fills, by token.
    receiving: Vec<Option<Buffer>>,
    /// Buffers that the device sends, by token, and how much of them.
    sending: Vec<Option<(Buffer, usize)>>,
    free: Vec<Buffer>,
}

/// A hardware address, for people.
pub struct Address(pub [u8; 6]);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Frames on their way from the switch to the device.
struct Outgoing {
    frames: Mutex<Ring>,
    thread: Mutex<Option<ThreadId>>,
}

impl Sink for Outgoing {
    fn deliver(&self, frame: &[u8]) {
        let pushed = self.frames.lock().push(frame);
        if !pushed {
            return;
        }
        if let Some(id) = *self.thread.lock() {
            thread::unpark(id);
        }
    }
}

#[inline(never)]
fn driver(transport: Transport) -> Result<Box<Driver>, virtio_drivers::Error> {
    Ok(Box::new(Driver::new(transport)?))
}

impl Nic {
    /// Sets a network up.
    pub fn new(transport: Transport) -> Result<Box<Self>, virtio_drivers::Error> {
        let interrupts = transport.interrupts();
        let mut driver = driver(transport)?;
        driver.enable_interrupts();
        let (receiving, sending) =
            ((0..QUEUE).map(|_| None).collect(), (0..QUEUE).map(|_| None).collect());
        let mut nic = Box::new(Self { driver, interrupts, receiving, sending, free: Vec::new() });
        for _ in 0..QUEUE {
            let frame = memory::alloc(0).ok_or(virtio_drivers::Error::DmaError)?;
            // SAFETY: the frame is this network's, for ever.
            let page = unsafe { core::slice::from_raw_parts_mut(memory::window(frame), 4096) };
            let (first, second) = page.split_at_mut(BUFFER);
            nic.receive_into(first);
            nic.free.push(second);
        }
        Ok(nic)
    }

    /// Its hardware address.
    pub fn address(&self) -> Address {
        Address(self.driver.mac_address())
    }

    /// Makes it a switch's uplink.
    pub fn connect(self: Box<Self>, switch: Arc<Switch>) {
        let Some(frames) = Ring::new() else {
            warning!("no memory for a network's queue");
            return;
        };
        let outgoing = Arc::new(Outgoing { frames: Mutex::new(frames), thread: Mutex::default() });
        let Some(port) = switch.connect(None, outgoing.clone()) else { return };
        let for_thread = outgoing.clone();
        let spawned = thread::spawn(CpuSet::ALL, move || self.run(&switch, port, &for_thread));
        *outgoing.thread.lock() = spawned;
        if spawned.is_none() {
            warning!("no memory for a network's thread");
        }
    }

    #[allow(clippy::boxed_local)]
    fn run(mut self: Box<Self>, switch: &Switch, port: PortId, outgoing: &Outgoing) {
        let _waiting = Waiting::new();
        let look = if self.interrupts { LOOK } else { ASK };
        loop {
            let received = self.receive(switch, port);
            let sent = self.send(outgoing);
            if !received && !sent {
                thread::park(Some(time::now() + look));
            } else {
                // Guests on this CPU have their turn, too.
                thread::give_way();
            }
        }
    }

    /// Passes on what has come; whether there was anything.
    fn receive(&mut self, switch: &Switch, port: PortId) -> bool {
        let mut any = false;
        for _ in 0..QUEUE {
            let Some(token) = self.driver.poll_receive() else { break };
            let place = self.receiving.get_mut(usize::from(token));
            let Some(buffer) = place.and_then(Option::take) else { break };
            // SAFETY: the buffer that `receive_begin` gave this token for.
            let taken = unsafe { self.driver.receive_complete(token, buffer) };
            if let Ok((header, length)) = taken
                && let Some(frame) = buffer.get(header..header.saturating_add(length))
            {
                switch.send(port, frame);
            }
            self.receive_into(buffer);
            any = true;
        }
        any
    }

    fn receive_into(&mut self, buffer: Buffer) {
        // SAFETY: nobody touches the buffer until it is taken out of `receiving`.
        match unsafe { self.driver.receive_begin(buffer) } {
            Ok(token) => {
                if let Some(place) = self.receiving.get_mut(usize::from(token)) {
                    *place = Some(buffer);
                }
            }
            Err(_) => self.free.push(buffer),
        }
    }

    /// Sends what waits; whether there was anything.
    fn send(&mut self, outgoing: &Outgoing) -> bool {
        let mut any = false;
        while let Some(token) = self.driver.poll_transmit() {
            let place = self.sending.get_mut(usize::from(token));
            let Some((buffer, length)) = place.and_then(Option::take) else { break };
            // SAFETY: the buffer that `transmit_begin` gave this token for.
            let _ = unsafe { self.driver.transmit_complete(token, &buffer[..length]) };
            self.free.push(buffer);
            any = true;
        }
        while self.driver.can_send() && !self.free.is_empty() {
            let mut frame = [0; MAX_FRAME];
            let Some(length) = outgoing.frames.lock().pop(&mut frame) else { break };
            any |= self.send_one(&frame[..length]).is_some();
        }
        any
    }

    fn send_one(&mut self, frame: &[u8]) -> Option<()> {
        let buffer = self.free.pop()?;
        let header = self.driver.fill_buffer_header(buffer).ok()?;
        let length = header + frame.len().min(MAX_FRAME);
        buffer.get_mut(header..length)?.copy_from_slice(frame.get(..length - header)?);
        // SAFETY: nobody touches the buffer until it is taken out of `sending`.
        match unsafe { self.driver.transmit_begin(&buffer[..length]) } {
            Ok(token) => *self.sending.get_mut(usize::from(token))? = Some((buffer, length)),
            Err(_) => self.free.push(buffer),
        }
        Some(())
    }
}
