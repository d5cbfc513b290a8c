//! The first serial port (16550 at 0x3f8), 115200 baud, polled.

use crate::cpu::port::{inb, outb};
use core::fmt;

const BASE: u16 = 0x3f8;
const LINE_STATUS: u16 = BASE + 5;
const EMPTY: u8 = 0x20;
/// A port that never gets ready is passed over after so many looks.
const PATIENCE: u32 = 100_000;

/// Sets the port up.
pub fn init() {
    // Interrupts off; divisor 1; 8 bits, no parity, 1 stop bit; FIFOs on and empty; DTR, RTS, OUT2.
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 0xb)] {
        // SAFETY: the port's own registers.
        unsafe { outb(BASE + register, value) };
    }
}

/// Sends one byte.
pub fn send(byte: u8) {
    for _ in 0..PATIENCE {
        // SAFETY: reading the line status has no effect on anything else.
        if unsafe { inb(LINE_STATUS) } & EMPTY != 0 {
            break;
        }
        core::hint::spin_loop();
    }
    // SAFETY: the transmit register.
    unsafe { outb(BASE, byte) };
}

/// Something was received.
pub fn interrupt() {}

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
