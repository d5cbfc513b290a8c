//! Address ranges and the devices behind them.
//!
//! Ranges never overlap. A lookup is a binary search. An access belongs to a device only if all
//! of its bytes do.

use super::{Access, Device, Effects, Width};
use crate::sync::{Mutex, RwLock};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A device that a bus shares with whoever else needs it.
#[derive(Clone)]
pub struct DeviceRef(Arc<Mutex<dyn Device>>);

impl DeviceRef {
    /// Takes a device.
    pub fn new(device: impl Device + 'static) -> Self {
        Self(Arc::new(Mutex::new(device)))
    }

    /// Shares a device that is also used elsewhere.
    pub fn shared(device: Arc<Mutex<dyn Device>>) -> Self {
        Self(device)
    }
}

impl fmt::Debug for DeviceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceRef({:p})", Arc::as_ptr(&self.0))
    }
}

/// Which bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Guest-physical addresses without memory.
    Mmio,
    /// x86 ports.
    Pio,
}

/// What an access that no device claims is answered with. Writes vanish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unclaimed {
    /// All bits set, as an open bus on a PC.
    #[default]
    Ones,
    /// All bits clear.
    Zeros,
    /// Nothing: the caller is told and ends the guest or injects a fault.
    Fault,
}

/// Why a device was not put on a bus, or not taken off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range has no bytes or ends before it starts.
    #[error("bus range {:#x}..{:#x} is empty: give a device at least one byte", .0.start, .0.end)]
    Empty(Range<u64>),
    /// The range shares bytes with another device's.
    #[error("bus range {:#x}..{:#x} overlaps the device at {:#x}..{:#x}: choose another range", .range.start, .range.end, .other.start, .other.end)]
    Overlap {
        /// The range asked for.
        range: Range<u64>,
        /// The range that is there.
        other: Range<u64>,
    },
    /// No device has exactly this range.
    #[error("no device has the bus range {:#x}..{:#x}: name the range it was put at", .0.start, .0.end)]
    NotThere(Range<u64>),
}

#[derive(Debug)]
struct Entry {
    range: Range<u64>,
    device: DeviceRef,
}

/// A bus. Lock order: `entries`, for reading; then a device's own lock. No device asks for a bus's
/// map: a layout is an effect, applied when both are dropped.
#[derive(Debug, Default)]
pub struct Bus {
    /// Sorted by start.
    entries: RwLock<Vec<Entry>>,
    /// Which entry was found last: most accesses go where the one before went.
    last: AtomicUsize,
    unclaimed: Unclaimed,
    missed: AtomicU64,
}

impl Bus {
    /// A bus without devices.
    pub fn new(unclaimed: Unclaimed) -> Self {
        Self { unclaimed, ..Self::default() }
    }

    /// Accesses that no device claimed, so far.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Puts a device at a range of addresses.
    ///
    /// # Errors
    /// [`BusError::Empty`] and [`BusError::Overlap`].
    pub fn insert(&self, range: Range<u64>, device: DeviceRef) -> Result<(), BusError> {
        insert(&mut self.entries.write(), range, device)
    }

    /// Takes the device away that has exactly this range. An access that is under way ends first
    /// or goes on undisturbed.
    ///
    /// # Errors
    /// [`BusError::NotThere`].
    pub fn remove(&self, range: Range<u64>) -> Result<DeviceRef, BusError> {
        remove(&mut self.entries.write(), &range)
    }

    /// Takes a device from wherever it is, and puts it at another range, as one step. If the
    /// second part fails the first is not undone: a BAR programmed onto another device answers
    /// nowhere. However a guest's moves overtake each other, a device is at one place at most.
    ///
    /// # Errors
    /// [`BusError::Empty`] and [`BusError::Overlap`].
    pub fn place(&self, device: &DeviceRef, to: Option<Range<u64>>) -> Result<(), BusError> {
        let mut entries = self.entries.write();
        entries.retain(|entry| !Arc::ptr_eq(&entry.device.0, &device.0));
        match to {
            Some(range) => insert(&mut entries, range, device.clone()),
            None => Ok(()),
        }
    }

    /// Reads, with the bits that the width has. `None`: unclaimed, and the rule is
    /// [`Unclaimed::Fault`].
    #[inline(always)]
    pub fn read(&self, address: u64, width: Width, effects: &mut Effects) -> Option<u64> {
        let read = |device: &mut dyn Device, access| device.read(access, effects);
        if let Some(value) = self.with(address, width, read) {
            return Some(value & width.mask());
        }
        match self.unclaimed {
            Unclaimed::Ones => Some(width.mask()),
            Unclaimed::Zeros => Some(0),
            Unclaimed::Fault => None,
        }
    }

    /// Writes the bits of `value` that the width has. `None`: as for [`Bus::read`].
    #[inline(always)]
    pub fn write(
        &self,
        address: u64,
        width: Width,
        value: u64,
        effects: &mut Effects,
    ) -> Option<()> {
        let value = value & width.mask();
        let write = |device: &mut dyn Device, access| device.write(access, value, effects);
        let done = self.with(address, width, write);
        done.or_else(|| (self.unclaimed != Unclaimed::Fault).then_some(()))
    }

    /// Calls the device that claims all bytes of an access.
    #[inline(always)]
    fn with<T>(
        &self,
        address: u64,
        width: Width,
        access: impl FnOnce(&mut dyn Device, Access) -> T,
    ) -> Option<T> {
        let entries = self.entries.read();
        let last = entries.get(self.last.load(Ordering::Relaxed));
        let last = last.filter(|entry| entry.range.contains(&address));
        if let Some(entry) = last.or_else(|| self.find(&entries, address))
            && address.checked_add(width.bytes()).is_some_and(|end| end <= entry.range.end)
        {
            let offset = address - entry.range.start;
            // Under the map's lock: to hold the device itself would cost more than the rest.
            return Some(access(&mut *entry.device.0.lock(), Access { offset, width }));
        }
        drop(entries);
        self.missed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Bus {
    /// The entry that starts at an address or is the next one before it.
    #[inline(never)]
    fn find<'a>(&self, entries: &'a [Entry], address: u64) -> Option<&'a Entry> {
        let index = after(entries, address).checked_sub(1)?;
        self.last.store(index, Ordering::Relaxed);
        entries.get(index)
    }
}

/// How many entries start at or before an address.
fn after(entries: &[Entry], address: u64) -> usize {
    entries.partition_point(|entry| entry.range.start <= address)
}

fn insert(entries: &mut Vec<Entry>, range: Range<u64>, device: DeviceRef) -> Result<(), BusError> {
    if range.is_empty() {
        return Err(BusError::Empty(range));
    }
    let index = after(entries, range.start);
    let (before, behind) = (index.checked_sub(1).map(|i| &entries[i]), entries.get(index));
    let overlaps = |entry: &&Entry| entry.range.start < range.end && range.start < entry.range.end;
    if let Some(other) = before.into_iter().chain(behind).find(overlaps) {
        return Err(BusError::Overlap { other: other.range.clone(), range });
    }
    entries.insert(index, Entry { range, device });
    Ok(())
}

fn remove(entries: &mut Vec<Entry>, range: &Range<u64>) -> Result<DeviceRef, BusError> {
    let index = entries.binary_search_by_key(&range.start, |entry| entry.range.start).ok();
    match index.filter(|index| entries[*index].range == *range) {
        Some(index) => Ok(entries.remove(index).device),
        None => Err(BusError::NotThere(range.clone())),
    }
}

#[cfg(test)]
mod tests;
