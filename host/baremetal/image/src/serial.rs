//! The first serial port (16550 at 0x3f8), 115200 baud, polled.

use crate::cpu::port::{inb, outb};
use crate::{end, thread};
use core::fmt;
use host_baremetal::sched::ThreadId;
use hypervisor::sync::Mutex;

const BASE: u16 = 0x3f8;
const LINE_STATUS: u16 = BASE + 5;
const EMPTY: u8 = 0x20;
const DATA: u8 = 1;
/// After a failure a port that never gets ready is passed over after so many looks.
const PATIENCE: u32 = 100_000;

/// Sets the port up.
pub fn init() {
    // Interrupts off; divisor 1; 8 bits, no parity, 1 stop bit; FIFOs on and empty; DTR, RTS, OUT2.
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 0xb)] {
        // SAFETY: the port's own registers.
        unsafe { outb(BASE + register, value) };
    }
}

/// Sends one byte. It waits as long as the reader takes: nothing that was printed is lost. Where there
/// is no port, all bits of its status are set.
pub fn send(byte: u8) {
    let mut looks = 0;
    // SAFETY: reading the line status has no effect on anything else.
    while unsafe { inb(LINE_STATUS) } & EMPTY == 0 {
        if end::has_failed() {
            looks += 1;
            if looks > PATIENCE {
                break;
            }
        }
        core::hint::spin_loop();
    }
    // SAFETY: the transmit register.
    unsafe { outb(BASE, byte) };
}

/// Bytes that wait to be read at most.
const WAITING: usize = 256;

struct Received {
    bytes: ArrayDeque,
    reader: Option<ThreadId>,
}

/// A ring of bytes.
struct ArrayDeque {
    bytes: [u8; WAITING],
    first: usize,
    count: usize,
}

static RECEIVED: Mutex<Received> = Mutex::new(Received {
    bytes: ArrayDeque { bytes: [0; WAITING], first: 0, count: 0 },
    reader: None,
});

/// From now on the port interrupts at each byte, and this thread is woken.
pub fn receive_for(reader: Option<ThreadId>) {
    RECEIVED.lock().reader = reader;
    // SAFETY: the port's own register: received data available.
    unsafe { outb(BASE + 1, 1) };
    // What came before is an interrupt that nobody took.
    interrupt();
}

/// Something was received: takes it and wakes the reader. What does not fit is lost.
pub fn interrupt() {
    let mut received = RECEIVED.lock();
    for _ in 0..WAITING {
        // SAFETY: reading the line status has no effect on anything else.
        if unsafe { inb(LINE_STATUS) } & DATA == 0 {
            break;
        }
        // SAFETY: takes the received byte.
        let byte = unsafe { inb(BASE) };
        let ring = &mut received.bytes;
        if ring.count < WAITING {
            ring.bytes[(ring.first + ring.count) % WAITING] = byte;
            ring.count += 1;
        }
    }
    let reader = received.reader;
    drop(received);
    if let Some(reader) = reader {
        thread::unpark(reader);
    }
}

/// The next byte that was received.
pub fn receive() -> Option<u8> {
    let ring = &mut RECEIVED.lock().bytes;
    let byte = ring.bytes[ring.first];
    if ring.count == 0 {
        return None;
    }
    ring.first = (ring.first + 1) % WAITING;
    ring.count -= 1;
    Some(byte)
}

/// Text for people: line feeds become carriage return and line feed.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                send(b'\r');
            }
            send(byte);
        }
        Ok(())
    }
}
