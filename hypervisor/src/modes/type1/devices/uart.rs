//! The serial line: a 16550A (National Semiconductor PC16550D data sheet).
//!
//! It transmits at once: the transmitter is empty again with every write, unless the host's end does
//! not keep up. Then it is full until a whole FIFO's worth fits again, which brings its interrupt, so
//! a driver that waits for the transmitter loses nothing however slow the console is. What is received comes from a buffer that fills the FIFO as
//! fast as the guest empties it, so nothing overruns but in loopback.

mod link;

pub use link::{Flush, SerialInput, UartLink};

use crate::device::{Access, Device, Effect, Effects, SourceId, WorkRef};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use arrayvec::ArrayVec;

use super::{read_bytes, write_bytes};

/// Bytes that wait for the FIFO at most.
pub const INPUT: usize = 4096;

bitflags::bitflags! {
    /// Interrupt enable register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    struct Enable: u8 {
        const RECEIVED = 1;
        const TRANSMITTER = 2;
        const LINE = 4;
        const MODEM = 8;
    }

    /// Line status register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Line: u8 {
        const READY = 1;
        const OVERRUN = 2;
        const HOLDING_EMPTY = 0x20;
        const EMPTY = 0x40;
    }

    /// Modem control register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    struct Control: u8 {
        const DTR = 1;
        const RTS = 2;
        const OUT1 = 4;
        const OUT2 = 8;
        const LOOP = 0x10;
    }

    /// Modem status register; the lower half says what has changed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Modem: u8 {
        const CTS = 0x10;
        const DSR = 0x20;
        const RI = 0x40;
        const DCD = 0x80;
    }
}

/// Line control register: the divisor is at registers 0 and 1.
const DIVISOR: u8 = 0x80;
/// FIFO control register: enabled.
const FIFO: u8 = 1;

/// A serial line.
pub struct Uart {
    enable: Enable,
    line_control: u8,
    control: Control,
    /// Lower half of the modem status register.
    changes: u8,
    scratch: u8,
    divisor: [u8; 2],
    /// FIFO control register: enable and trigger level.
    fifo: u8,
    received: ArrayVec<u8, 16>,
    overrun: bool,
    /// The transmitter's interrupt waits.
    transmitted: bool,
    input: VecDeque<u8>,
    /// Input was refused since there was room last.
    refused: bool,
    asserted: bool,
    irq: SourceId,
    link: Arc<UartLink>,
    room: WorkRef,
}

impl Uart {
    /// After power-up. `irq` is a level: the controller makes edges of it. Output goes to `link`;
    /// `room` runs when there is room for input again.
    pub fn new(irq: SourceId, link: Arc<UartLink>, room: WorkRef) -> Self {
        Self {
            enable: Enable::empty(),
            line_control: 0,
            control: Control::empty(),
            changes: 0,
            scratch: 0,
            divisor: [1, 0],
            fifo: 0,
            received: ArrayVec::new(),
            overrun: false,
            transmitted: false,
            input: VecDeque::with_capacity(INPUT),
            refused: false,
            asserted: false,
            irq,
            link,
            room,
        }
    }

    /// Back to the state after power-up; what was typed waits on.
    pub fn reset(&mut self) {
        let input = core::mem::take(&mut self.input);
        let refused = self.refused;
        *self =
            Self { input, refused, ..Self::new(self.irq, self.link.clone(), self.room.clone()) };
    }

    /// Takes what was typed, as much as there is room for.
    pub fn type_in(&mut self, bytes: &[u8], effects: &mut Effects) -> usize {
        let taken = bytes.len().min(INPUT - self.input.len().min(INPUT));
        self.input.extend(&bytes[..taken]);
        self.refused |= taken < bytes.len();
        self.update(effects);
        taken
    }

    fn has_fifo(&self) -> bool {
        self.fifo & FIFO != 0
    }

    fn is_looped(&self) -> bool {
        self.control.contains(Control::LOOP)
    }

    /// Bytes at which the receiver's interrupt comes.
    fn trigger(&self) -> usize {
        if self.has_fifo() { [1, 4, 8, 14][usize::from(self.fifo >> 6)] } else { 1 }
    }

    fn capacity(&self) -> usize {
        if self.has_fifo() { 16 } else { 1 }
    }

    fn refill(&mut self, effects: &mut Effects) {
        while !self.is_looped() && self.received.len() < self.capacity() {
            let Some(byte) = self.input.pop_front() else { break };
            self.received.push(byte);
        }
        if self.refused && self.input.len() <= INPUT / 2 {
            self.refused = false;
            effects.push(Effect::Work(self.room.clone()));
        }
    }

    /// Interrupt identification without the FIFO bits: the first cause by priority.
    fn cause(&self) -> u8 {
        const NONE: u8 = 1;
        if self.enable.contains(Enable::LINE) && self.overrun {
            6
        } else if self.enable.contains(Enable::RECEIVED) && !self.received.is_empty() {
            // Below the trigger level the FIFO's time-out would come; it comes at once.
            if self.received.len() >= self.trigger() { 4 } else { 0xc }
        } else if self.enable.contains(Enable::TRANSMITTER) && self.transmitted {
            2
        } else if self.enable.contains(Enable::MODEM) && self.changes != 0 {
            0
        } else {
            NONE
        }
    }

    /// Fills the FIFO and drives the line.
    fn update(&mut self, effects: &mut Effects) {
        self.refill(effects);
        // A PC gates the interrupt by OUT2, which loopback takes from its pin.
        let gate = self.control.contains(Control::OUT2) && !self.is_looped();
        let asserted = gate && self.cause() & 1 == 0;
        if asserted != self.asserted {
            self.asserted = asserted;
            let effect = if asserted { Effect::Raise } else { Effect::Lower };
            effects.push(effect(self.irq));
        }
    }

    fn modem(&self) -> Modem {
        if !self.is_looped() {
            return Modem::CTS | Modem::DSR | Modem::DCD;
        }
        let pairs = [
            (Control::RTS, Modem::CTS),
            (Control::DTR, Modem::DSR),
            (Control::OUT1, Modem::RI),
            (Control::OUT2, Modem::DCD),
        ];
        let inputs = pairs.into_iter().filter(|(output, _)| self.control.contains(*output));
        inputs.fold(Modem::empty(), |modem, (_, input)| modem | input)
    }

    fn set_control(&mut self, value: u8) {
        let before = self.modem();
        self.control = Control::from_bits_truncate(value);
        let after = self.modem();
        let changed = (before ^ after).bits() >> 4;
        // Of the ring indicator only the end counts.
        let rings = after.contains(Modem::RI);
        self.changes |= if rings { changed & !4 } else { changed };
    }

    fn set_fifo(&mut self, value: u8) {
        let toggled = (self.fifo ^ value) & FIFO != 0;
        if toggled || value & 2 != 0 {
            self.received.clear();
            self.overrun = false;
        }
        self.fifo = if value & FIFO != 0 { value & 0xc1 } else { 0 };
    }

    fn transmit(&mut self, byte: u8, effects: &mut Effects) {
        if !self.is_looped() {
            self.link.put(byte, effects);
        } else if self.received.len() < self.capacity() {
            self.received.push(byte);
        } else {
            self.overrun = true;
        }
        self.transmitted = self.is_looped() || self.link.has_room_or_tells();
    }

    /// The link takes a whole FIFO again.
    fn emptied(&mut self, effects: &mut Effects) {
        self.transmitted = true;
        self.update(effects);
    }

    fn read_byte(&mut self, offset: u8) -> u8 {
        let divisor = self.line_control & DIVISOR != 0;
        match offset {
            0 | 1 if divisor => self.divisor[usize::from(offset)],
            0 => self.received.pop_at(0).unwrap_or(0),
            1 => self.enable.bits(),
            2 => {
                let cause = self.cause();
                if cause == 2 {
                    self.transmitted = false;
                }
                cause | if self.has_fifo() { 0xc0 } else { 0 }
            }
            3 => self.line_control,
            4 => self.control.bits(),
            5 => self.line_status().bits(),
            6 => self.modem().bits() | core::mem::take(&mut self.changes),
            _ => self.scratch,
        }
    }

    fn line_status(&mut self) -> Line {
        let mut line = Line::empty();
        line.set(Line::READY, !self.received.is_empty());
        line.set(Line::OVERRUN, core::mem::take(&mut self.overrun));
        line.set(Line::HOLDING_EMPTY | Line::EMPTY, self.link.has_room());
        line
    }

    fn write_byte(&mut self, offset: u8, value: u8, effects: &mut Effects) {
        let divisor = self.line_control & DIVISOR != 0;
        match offset {
            0 | 1 if divisor => self.divisor[usize::from(offset)] = value,
            0 => self.transmit(value, effects),
            1 => {
                let enable = Enable::from_bits_truncate(value);
                // Where the transmitter is empty, enabling its interrupt brings it.
                if (enable - self.enable).contains(Enable::TRANSMITTER) {
                    self.transmitted |= self.link.has_room_or_tells();
                }
                self.enable = enable;
            }
            2 => self.set_fifo(value),
            3 => self.line_control = value,
            4 => self.set_control(value),
            7 => self.scratch = value,
            _ => {}
        }
    }
}

impl Device for Uart {
    fn name(&self) -> &str {
        "16550A"
    }

    fn read(&mut self, access: Access, effects: &mut Effects) -> u64 {
        let value = read_bytes(access, |offset| self.read_byte(offset));
        self.update(effects);
        value
    }

    fn write(&mut self, access: Access, value: u64, effects: &mut Effects) {
        write_bytes(access, value, |offset, value| self.write_byte(offset, value, effects));
        self.update(effects);
    }
}

#[cfg(test)]
mod tests;
