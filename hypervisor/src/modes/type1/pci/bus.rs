//! Bus 0, the only one: which function is where.

use super::bar::BarKind;
use super::function::Function;
use crate::device::{Effects, Width};
use crate::sync::{Mutex, RwLock};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::ops::Range;

/// Ports that BARs are given where there is no firmware.
const PORTS: Range<u64> = 0xc000..0xffff;

/// The functions of bus 0.
#[derive(Debug, Default)]
pub struct PciBus {
    /// By device and function number (5 and 3 bits). Lock order: this, then a function.
    functions: RwLock<BTreeMap<u8, Arc<Mutex<Function>>>>,
}

impl PciBus {
    /// A bus without functions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts function 0 of a device into a slot (0 to 31), in place of what was there.
    pub fn insert(&self, slot: u8, mut function: Function) {
        function.seal();
        self.functions.write().insert(slot % 32 * 8, Arc::new(Mutex::new(function)));
    }

    /// The function with this device and function number.
    pub fn function(&self, number: u8) -> Option<Arc<Mutex<Function>>> {
        self.functions.read().get(&number).cloned()
    }

    /// Gives every BAR an address, where no firmware does: memory in `window`, below 4 GiB. What
    /// does not fit is left to the operating system.
    pub fn assign(&self, window: Range<u64>) {
        let (mut memory, mut ports) = (window, PORTS);
        for function in self.functions.read().values() {
            let mut function = function.lock();
            for index in 0..function.bars().len() {
                let (kind, size) = (function.bars()[index].kind(), function.bars()[index].size());
                let from = if kind == BarKind::Io { &mut ports } else { &mut memory };
                let Some(start) = from.start.checked_next_multiple_of(size) else { continue };
                let end = start.saturating_add(size);
                if end <= from.end {
                    function.set_bar(index, start);
                    from.start = end;
                }
            }
            function.seal();
        }
    }

    /// All functions as after power-on. The effects hide what is behind their BARs, and then show
    /// what the host bridge shows: a guest may have left a BAR where that goes.
    pub fn reset(&self, effects: &mut Effects) {
        for function in self.functions.read().values().rev() {
            function.lock().reset(effects);
        }
    }

    /// Reads configuration space: all ones where no function is.
    pub(super) fn read(&self, place: Place, width: Width, effects: &mut Effects) -> u64 {
        match place.on_bus_0().and_then(|number| self.function(number)) {
            Some(function) => function.lock().read(place.register, width, effects),
            None => width.mask(),
        }
    }

    /// Writes configuration space.
    pub(super) fn write(&self, place: Place, width: Width, value: u64, effects: &mut Effects) {
        if let Some(function) = place.on_bus_0().and_then(|number| self.function(number)) {
            function.lock().write(place.register, width, value, effects);
        }
    }
}

/// A place in configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Bus.
    pub bus: u8,
    /// Device and function.
    pub number: u8,
    /// Offset of the register, below 4096.
    pub register: usize,
}

impl Place {
    fn on_bus_0(self) -> Option<u8> {
        (self.bus == 0).then_some(self.number)
    }
}
