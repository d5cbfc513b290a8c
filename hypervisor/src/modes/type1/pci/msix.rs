//! MSI-X (PCI 3.0 §6.8.2): a table of messages and their pending bits, in a BAR of their own.

use super::Interrupts;
use super::capability::{Capability, Part};
use crate::device::{Access, Device, Effect, Effects, MsiMessage};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Capability ID.
pub const ID: u8 = 0x11;
/// Size of the BAR.
pub const TABLE_SIZE: u64 = 0x1000;
/// Offset of the pending bits in it.
pub const PBA_OFFSET: u64 = 0x800;
/// Most vectors: what fits before the pending bits.
pub const MAX_VECTORS: u16 = 128;

const ENTRY: u64 = 16;
/// Bit of an entry's vector control.
const MASKED: u32 = 1;
/// Bits of the message control register's upper byte.
pub const CONTROL_MASKED: u8 = 1 << 6;
/// It is enabled.
pub const CONTROL_ENABLED: u8 = 1 << 7;

/// The capability of a function with so many vectors, whose table is in BAR `bar`.
pub fn capability(vectors: u16, bar: u8) -> Capability {
    let [low, high] = vectors.clamp(1, MAX_VECTORS).wrapping_sub(1).to_le_bytes();
    let pba = u32::try_from(PBA_OFFSET).unwrap_or(0) | u32::from(bar);
    let control = Part {
        reset: Vec::from([low, high]),
        writable: Vec::from([0, CONTROL_ENABLED | CONTROL_MASKED]),
    };
    let places = [u32::from(bar).to_le_bytes(), pba.to_le_bytes()].concat();
    Capability { id: ID, body: Vec::from([control, Part::fixed(&places)]) }
}

/// Table, pending bits, and what the message control register says.
#[derive(Debug)]
pub(super) struct Msix {
    requester: u32,
    /// Address low, address high, data, vector control.
    table: Vec<[u32; 4]>,
    pending: u128,
    enabled: bool,
    masked: bool,
}

impl Msix {
    pub fn new(requester: u32, vectors: u16) -> Self {
        let table = alloc::vec![[0, 0, 0, MASKED]; usize::from(vectors.min(MAX_VECTORS))];
        Self { requester, table, pending: 0, enabled: false, masked: false }
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub fn vectors(&self) -> u16 {
        u16::try_from(self.table.len()).unwrap_or(MAX_VECTORS)
    }

    pub fn reset(&mut self) {
        *self = Self::new(self.requester, self.vectors());
    }

    pub fn configure(&mut self, enabled: bool, masked: bool, effects: &mut Effects) {
        (self.enabled, self.masked) = (enabled, masked);
        if self.pending != 0 {
            (0..self.table.len()).for_each(|index| self.deliver(index, effects));
        }
    }

    pub fn send(&mut self, vector: u16, effects: &mut Effects) {
        let index = usize::from(vector);
        if self.enabled && index < self.table.len() {
            self.pending |= 1 << index;
            self.deliver(index, effects);
        }
    }

    /// Sends a pending message that nothing masks.
    fn deliver(&mut self, index: usize, effects: &mut Effects) {
        let [low, high, data, control] = self.table[index];
        let bit = 1 << index;
        if self.pending & bit == 0 || !self.enabled || self.masked || control & MASKED != 0 {
            return;
        }
        self.pending &= !bit;
        let address = u64::from(high) << 32 | u64::from(low);
        effects.push(Effect::Msi(MsiMessage { device: self.requester, address, data }));
    }

    /// The aligned 32 bits at `offset` of the BAR.
    pub fn read(&self, offset: u64) -> u32 {
        if let Some((index, field)) = self.place(offset) {
            return self.table[index][field];
        }
        let word = offset.checked_sub(PBA_OFFSET).map(|offset| offset / 4);
        match word {
            Some(word @ 0..4) => {
                u32::try_from(self.pending >> (word * 32) & 0xffff_ffff).unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Writes the bits of `mask` of the aligned 32 bits at `offset`. Pending bits are read-only.
    pub fn write(&mut self, offset: u64, mask: u32, value: u32, effects: &mut Effects) {
        let Some((index, field)) = self.place(offset) else { return };
        // The lowest bits of an address are wired to 0; of the control word only one bit exists.
        let existing = [!0b11, !0, !0, MASKED][field];
        let old = self.table[index][field];
        self.table[index][field] = (old & !mask | value & mask) & existing;
        self.deliver(index, effects);
    }

    fn place(&self, offset: u64) -> Option<(usize, usize)> {
        let index = usize::try_from(offset / ENTRY).ok()?;
        let field = usize::try_from(offset % ENTRY / 4).ok()?;
        (index < self.table.len()).then_some((index, field))
    }
}

/// The device behind the BAR.
#[derive(Debug)]
pub struct MsixBar(pub Arc<Interrupts>);

impl Device for MsixBar {
    fn name(&self) -> &str {
        "MSI-X table"
    }

    fn read(&mut self, access: Access, _: &mut Effects) -> u64 {
        let aligned = access.offset & !3;
        let low = u64::from(self.0.read_table(aligned));
        let high = u64::from(self.0.read_table(aligned + 4));
        (high << 32 | low) >> (8 * (access.offset - aligned))
    }

    /// 32 or 64 bits at once are legal; less and misaligned is undefined, and done here as if
    /// the rest had been written with what was there.
    fn write(&mut self, access: Access, value: u64, effects: &mut Effects) {
        let aligned = access.offset & !3;
        let shift = 8 * (access.offset - aligned);
        let bits = |n: u128, word: u32| u32::try_from(n >> (word * 32) & 0xffff_ffff).unwrap_or(0);
        let value = u128::from(value) << shift;
        let mask = u128::from(access.width.mask()) << shift;
        for word in 0..3 {
            if bits(mask, word) != 0 {
                let at = aligned + u64::from(word) * 4;
                self.0.write_table(at, bits(mask, word), bits(value, word), effects);
            }
        }
    }
}
