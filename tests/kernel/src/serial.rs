//! The console: COM1, polled (National Semiconductor PC16550D).

use crate::cpu::{inb, outb};
use core::fmt::{self, Write};

const DATA: u16 = 0x3f8;
const LINE_CONTROL: u16 = DATA + 3;
const LINE_STATUS: u16 = DATA + 5;
/// Transmitter holding register empty.
const THRE: u8 = 1 << 5;
/// How often to ask before a byte is written all the same: the console may be what was broken.
const PATIENCE: u32 = 100_000;

struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let mut asked = 0;
            while inb(LINE_STATUS) & THRE == 0 && asked < PATIENCE {
                asked += 1;
            }
            outb(DATA, byte);
        }
        Ok(())
    }
}

/// Sets 115200 baud, 8N1, FIFOs on, no interrupts. Again after a misdeed on the ports.
pub fn init() {
    outb(LINE_CONTROL, 0x80);
    outb(DATA, 1);
    outb(DATA + 1, 0);
    outb(LINE_CONTROL, 0x03);
    outb(DATA + 1, 0);
    outb(DATA + 2, 0x07);
    outb(DATA + 4, 0x03);
}

/// Prints; [`println!`](crate::println) is its face.
pub fn print(text: fmt::Arguments<'_>) {
    // The port never fails.
    let _ = Port.write_fmt(text);
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => {{
        $crate::serial::print(format_args!($($text)*));
        $crate::serial::print(format_args!("\n"));
    }};
}
