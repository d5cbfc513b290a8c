//! One function of a device: its configuration space and what follows from writes to it.

use super::bar::{Bar, BarKind};
use super::capability::{Capability, List};
use super::config::{ConfigSpace, command, register};
use super::interrupts::Interrupts;
use super::msix;
use crate::device::{DeviceRef, Effects, Width};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// Bits of the command register that may be written.
const COMMAND: u16 = command::IO | command::MEMORY | command::MASTER | command::NO_INTX;
/// Bit of the status register: the pin is wanted asserted.
const INTERRUPT_STATUS: u8 = 1 << 3;

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Base class, subclass, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor and subsystem.
    pub subsystem: (u16, u16),
}

/// What a function does at registers of its own. It is called with the function's lock held.
pub trait Extension: Send {
    /// A guest is about to read there.
    fn reading(&mut self, config: &mut ConfigSpace, range: Range<usize>, effects: &mut Effects) {
        let _ = (config, range, effects);
    }

    /// A guest has written there; `config` has the bits that could be written.
    fn written(&mut self, config: &mut ConfigSpace, range: Range<usize>, effects: &mut Effects) {
        let _ = (config, range, effects);
    }

    /// The machine was reset; `config` has been already.
    fn reset(&mut self, config: &mut ConfigSpace, effects: &mut Effects) {
        let _ = (config, effects);
    }
}

/// A function.
pub struct Function {
    config: ConfigSpace,
    /// As it is after reset.
    initial: ConfigSpace,
    capabilities: List,
    bars: Vec<Bar>,
    interrupts: Option<Arc<Interrupts>>,
    /// Where the MSI-X capability is.
    msix: Option<usize>,
    extension: Option<Box<dyn Extension>>,
}

impl Function {
    /// A function without BARs, capabilities and interrupts.
    pub fn new(identity: &Identity) -> Self {
        let mut config = ConfigSpace::default();
        let words = |a: u16, b: u16| [a.to_le_bytes(), b.to_le_bytes()].concat();
        let [base, sub, interface] = identity.class;
        config.define(register::ID, &words(identity.vendor, identity.device), &[]);
        config.define(register::CLASS, &[identity.revision, interface, sub, base], &[]);
        config.define(register::COMMAND, &[], &COMMAND.to_le_bytes());
        config.define(register::CACHE_LINE, &[], &[0xff]);
        config.define(register::INTERRUPT_LINE, &[], &[0xff]);
        let (vendor, device) = identity.subsystem;
        config.define(register::SUBSYSTEM, &words(vendor, device), &[]);
        Self {
            initial: config.clone(),
            config,
            capabilities: List::default(),
            bars: Vec::new(),
            interrupts: None,
            msix: None,
            extension: None,
        }
    }

    /// Its registers, to define more before the machine starts.
    pub fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    /// Its registers.
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// Adds a BAR with the device behind it.
    pub fn add_bar(&mut self, index: usize, kind: BarKind, size: u64, device: DeviceRef) {
        self.bars.push(Bar::define(&mut self.config, index, kind, size, device));
    }

    /// Adds a capability and returns its offset; `None` where there is no room for it.
    pub fn add_capability(&mut self, capability: &Capability) -> Option<usize> {
        self.capabilities.add(&mut self.config, capability)
    }

    /// Gives it INTA# and, if there are vectors, MSI-X whose table is in BAR `bar`.
    pub fn add_interrupts(&mut self, interrupts: Arc<Interrupts>, bar: u8) {
        self.config.define(register::INTERRUPT_PIN, &[1], &[]);
        let vectors = interrupts.vectors();
        if vectors > 0 {
            self.msix = self.add_capability(&msix::capability(vectors, bar));
            let device = DeviceRef::new(msix::MsixBar(interrupts.clone()));
            self.add_bar(bar.into(), BarKind::Memory32, msix::TABLE_SIZE, device);
        }
        self.interrupts = Some(interrupts);
    }

    /// What it does at registers of its own.
    pub fn set_extension(&mut self, extension: impl Extension + 'static) {
        self.extension = Some(Box::new(extension));
    }

    /// What a guest reads.
    pub fn read(&mut self, offset: usize, width: Width, effects: &mut Effects) -> u64 {
        let range = offset..offset + width as usize;
        if let Some(extension) = &mut self.extension {
            extension.reading(&mut self.config, range.clone(), effects);
        }
        let mut value = self.config.read(offset, width);
        if range.contains(&register::STATUS)
            && self.interrupts.as_ref().is_some_and(|interrupts| interrupts.level())
        {
            value |= u64::from(INTERRUPT_STATUS) << (8 * (register::STATUS - offset));
        }
        value
    }

    /// Takes a guest's write and does what follows of it.
    pub fn write(&mut self, offset: usize, width: Width, value: u64, effects: &mut Effects) {
        self.config.write(offset, width, value);
        let range = offset..offset + width as usize;
        self.follow(&range, effects);
        if let Some(extension) = &mut self.extension {
            extension.written(&mut self.config, range, effects);
        }
    }

    /// What is in `config` now is what a reset brings back.
    pub(super) fn seal(&mut self) {
        self.initial = self.config.clone();
    }

    /// As after power-on.
    pub(super) fn reset(&mut self, effects: &mut Effects) {
        self.config = self.initial.clone();
        if let Some(interrupts) = &self.interrupts {
            interrupts.reset(effects);
        }
        self.follow(&(0..super::config::SIZE), effects);
        if let Some(extension) = &mut self.extension {
            extension.reset(&mut self.config, effects);
        }
    }

    /// The BARs, for who gives them addresses.
    pub(super) fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// Gives a BAR an address without letting it answer yet.
    pub(super) fn set_bar(&mut self, index: usize, address: u64) {
        if let Some(bar) = self.bars.get(index) {
            bar.set_address(&mut self.config, address);
        }
    }

    fn follow(&mut self, range: &Range<usize>, effects: &mut Effects) {
        let touches = |at: usize, end: usize| range.start < end && at < range.end;
        let command = touches(register::COMMAND, register::STATUS);
        if command || touches(register::BAR0, register::BARS_END) {
            self.bars.iter_mut().for_each(|bar| bar.follow(&self.config, effects));
        }
        let msix = self.msix.is_some_and(|at| touches(at, at + 4));
        if let Some(interrupts) = self.interrupts.as_ref().filter(|_| command || msix) {
            let bits = self.config.word(register::COMMAND);
            let no_pin = bits & command::NO_INTX != 0;
            let control = self.msix.map_or(0, |at| self.config.byte(at + 3));
            let enabled = control & msix::CONTROL_ENABLED != 0;
            // A message is a write to memory: without bus mastering it stays pending (PCI 3.0 §6.8).
            let held = bits & command::MASTER == 0;
            let masked = held || control & msix::CONTROL_MASKED != 0;
            interrupts.configure(no_pin, enabled, masked, effects);
        }
    }
}

impl core::fmt::Debug for Function {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Function").field("bars", &self.bars).finish_non_exhaustive()
    }
}
