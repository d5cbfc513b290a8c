//! The machine's interrupt controllers outside of the processors: the I/O APIC and the 8259 pair,
//! which see the same lines.
//!
//! [`Controllers`] is the board's [`InterruptSink`]. What comes out of it goes to the processors
//! by [`Messages`]: the core's own local APICs, or the backend's.
//!
//! Lock order: the lines' lock (held by who calls the sink), then one of the two controllers,
//! then nothing: what a controller sends takes no lock of this machine's.

mod io_apic;
mod pic;
#[cfg(test)]
mod tests;

pub use io_apic::IoApic;
pub use pic::{Pic, PicPair};

use super::apic::{ApicBus, Interrupt, Requests};
use super::layout::{LINES, TIMER_LINE};
use crate::device::{Access, Device, Effects, InterruptSink, MsiMessage};
use crate::sync::Mutex;
use crate::vcpu::machine::LocalControllers;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

/// The way to the processors.
pub trait Messages: Send + Sync {
    /// Delivers a message-signalled interrupt.
    fn msi(&self, message: MsiMessage);

    /// The 8259 pair's line to the first processor has changed.
    fn external(&self, asserted: bool);

    /// The vectors whose end is to be told.
    fn watch_ends(&self, vectors: [u64; 4]);
}

impl Messages for ApicBus {
    fn msi(&self, message: MsiMessage) {
        self.deliver(&Interrupt::from(message));
    }

    fn external(&self, _: bool) {
        if let Some(first) = self.inboxes().first() {
            first.ask(Requests::LOOK);
        }
    }

    fn watch_ends(&self, _: [u64; 4]) {}
}

/// A backend's local APICs. The first vCPU is told of the external line as well: its loop injects
/// that interrupt.
pub struct BackendApics {
    /// The backend's.
    pub controllers: Arc<dyn LocalControllers>,
    /// Whose inboxes the vCPUs' loops look at.
    pub bus: Arc<ApicBus>,
}

impl Messages for BackendApics {
    fn msi(&self, message: MsiMessage) {
        self.controllers.msi(message);
    }

    fn external(&self, asserted: bool) {
        self.controllers.set_external(asserted);
        self.bus.external(asserted);
    }

    fn watch_ends(&self, vectors: [u64; 4]) {
        self.controllers.watch_ends(vectors);
    }
}

/// Both controllers.
pub struct Controllers {
    io_apic: Mutex<IoApic>,
    pics: Mutex<PicPair>,
    /// The 8259 pair's line to the processor, as the pair last left it.
    external: AtomicBool,
    messages: Arc<dyn Messages>,
}

impl Controllers {
    /// After power-up.
    pub fn new(messages: Arc<dyn Messages>) -> Self {
        Self {
            io_apic: Mutex::new(IoApic::new(messages.clone())),
            pics: Mutex::new(PicPair::new()),
            external: AtomicBool::new(false),
            messages,
        }
    }

    /// Back to the state after power-up; the lines keep their levels.
    pub fn reset(&self) {
        self.io_apic.lock().reset();
        self.with_pics(PicPair::reset);
    }

    /// The service of an interrupt of a level-triggered line has ended.
    pub fn end_of_interrupt(&self, vector: u8) {
        self.io_apic.lock().end_of_interrupt(vector);
    }

    /// Whether the 8259 pair wants to interrupt.
    pub fn external(&self) -> bool {
        self.external.load(Ordering::SeqCst)
    }

    /// The processor takes the 8259 pair's interrupt: which vector it is.
    pub fn acknowledge(&self) -> u8 {
        self.with_pics(PicPair::acknowledge)
    }

    fn with_pics<T>(&self, with: impl FnOnce(&mut PicPair) -> T) -> T {
        let mut pics = self.pics.lock();
        let result = with(&mut pics);
        let asserted = pics.output();
        // Under the lock, so that the line ends as the pair does.
        if self.external.swap(asserted, Ordering::SeqCst) != asserted {
            self.messages.external(asserted);
        }
        result
    }
}

impl InterruptSink for Controllers {
    fn set_line(&self, line: u32, asserted: bool) {
        if line < 16 {
            self.with_pics(|pics| pics.set_line(line, asserted));
        }
        if line < LINES {
            self.io_apic.lock().set_pin(pin(line), asserted);
        }
    }

    fn pulse(&self, line: u32) {
        self.set_line(line, true);
        self.set_line(line, false);
    }

    fn msi(&self, message: MsiMessage) {
        self.messages.msi(message);
    }
}

/// The pin of the I/O APIC that a line is wired to: the timer has the cascade's.
const fn pin(line: u32) -> u32 {
    if line == TIMER_LINE { 2 } else { line }
}

/// The I/O APIC's page, for the bus.
pub struct IoApicPage(
    /// The controllers.
    pub Arc<Controllers>,
);

impl Device for IoApicPage {
    fn name(&self) -> &str {
        "I/O APIC"
    }

    fn read(&mut self, access: Access, _: &mut Effects) -> u64 {
        self.0.io_apic.lock().read(access).into()
    }

    fn write(&mut self, access: Access, value: u64, _: &mut Effects) {
        let value = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        self.0.io_apic.lock().write(access, value);
    }
}

/// Some of the 8259 pair's ports, for the bus.
pub struct PicPorts {
    /// The controllers.
    pub controllers: Arc<Controllers>,
    /// The first port: 0x20, 0xa0 or 0x4d0.
    pub base: u16,
}

impl Device for PicPorts {
    fn name(&self) -> &str {
        "8259"
    }

    fn read(&mut self, access: Access, _: &mut Effects) -> u64 {
        let base = self.base;
        self.controllers.with_pics(|pics| {
            super::devices::read_bytes(access, |offset| pics.read(base + u16::from(offset)))
        })
    }

    fn write(&mut self, access: Access, value: u64, _: &mut Effects) {
        let base = self.base;
        self.controllers.with_pics(|pics| {
            super::devices::write_bytes(access, value, |offset, byte| {
                pics.write(base + u16::from(offset), byte);
            });
        });
    }
}
