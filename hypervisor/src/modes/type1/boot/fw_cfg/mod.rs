//! fw_cfg: how firmware made for QEMU asks what machine it is in.
//!
//! Order: a [`Contents`] is filled with items and files; [`FwCfg::new`] makes the device of it,
//! which is put at ports [`PORTS`]. The tables are built when firmware first asks for one of
//! them, that is after it has set up PCI, because they say where it has put things.
//!
//! Source: QEMU `docs/specs/fw_cfg.rst`; the loader's commands are those of SeaBIOS
//! `src/fw/romfile_loader.h`.

mod contents;
mod dma;
mod loader;

pub use contents::{Contents, FILE_NAME_MAX};

use super::acpi::Tables;
use super::map::Row;
use crate::device::{Access, Device, Effects, Width};
use crate::memory::GuestMemory;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// Selector, data and DMA address.
pub const PORTS: Range<u64> = 0x510..0x51c;

const SELECTOR: u64 = 0;
const DATA: u64 = 1;
const DMA_HIGH: u64 = 4;
const DMA_LOW: u64 = 8;
/// What the DMA address register reads as.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// Makes the tables as the machine is when it is called.
pub type TableSource = Box<dyn Fn() -> Tables + Send>;

/// What firmware needs to know of every machine.
pub struct Machine<'a> {
    /// Processors.
    pub vcpus: u16,
    /// The memory map: RAM above 4 GiB and below, and what is reserved.
    pub map: &'a [Row],
    /// Whether text goes to the first serial port, as there is no screen.
    pub serial_console: bool,
}

/// The device.
pub struct FwCfg {
    contents: Contents,
    tables: Option<TableSource>,
    memory: Arc<GuestMemory>,
    selected: u16,
    offset: usize,
    dma_high: u32,
}

impl FwCfg {
    /// Makes the device. `memory` is where DMA goes.
    pub fn new(machine: &Machine<'_>, tables: TableSource, memory: Arc<GuestMemory>) -> Self {
        let mut contents = Contents::new(machine);
        loader::reserve(&mut contents, &tables());
        Self { contents, tables: Some(tables), memory, selected: 0, offset: 0, dma_high: 0 }
    }

    /// The items and files, to add more before the machine starts.
    pub fn contents_mut(&mut self) -> &mut Contents {
        &mut self.contents
    }

    fn select(&mut self, key: u16) {
        (self.selected, self.offset) = (key, 0);
        if self.contents.is_late(key)
            && let Some(tables) = self.tables.take()
        {
            loader::fill(&mut self.contents, &tables());
        }
    }

    /// The next byte of the selected item; 0 behind its end.
    fn next(&mut self) -> u8 {
        let item = self.contents.get(self.selected);
        let byte = item.get(self.offset).copied().unwrap_or(0);
        self.offset = self.offset.saturating_add(1);
        byte
    }

    /// What has not been read of the selected item, at most `most` bytes, and moves on.
    fn take(&mut self, most: usize) -> Vec<u8> {
        let item = self.contents.get(self.selected);
        let rest = item.get(self.offset..).unwrap_or_default();
        let part = rest[..rest.len().min(most)].to_vec();
        self.offset = self.offset.saturating_add(most);
        part
    }
}

impl Device for FwCfg {
    fn name(&self) -> &str {
        "fw_cfg"
    }

    fn read(&mut self, access: Access, _: &mut Effects) -> u64 {
        match access.offset {
            DATA => (0..access.width.bytes())
                .fold(0, |value, byte| value | u64::from(self.next()) << (8 * byte)),
            offset @ DMA_HIGH.. => dma_signature(offset - DMA_HIGH),
            _ => 0,
        }
    }

    fn write(&mut self, access: Access, value: u64, _: &mut Effects) {
        let (low, long) = (value.to_le_bytes(), access.width == Width::Long);
        match access.offset {
            SELECTOR if access.width >= Width::Word => {
                self.select(u16::from_le_bytes([low[0], low[1]]));
            }
            DMA_HIGH if long => {
                self.dma_high = u32::from_be_bytes([low[0], low[1], low[2], low[3]]);
            }
            DMA_LOW if long => {
                let address = u32::from_be_bytes([low[0], low[1], low[2], low[3]]);
                let high = core::mem::take(&mut self.dma_high);
                dma::run(self, u64::from(high) << 32 | u64::from(address));
            }
            _ => {}
        }
    }
}

fn dma_signature(offset: u64) -> u64 {
    let offset = u32::try_from(offset).unwrap_or(u32::MAX);
    u64::from_le_bytes(DMA_SIGNATURE).checked_shr(offset * 8).unwrap_or(0)
}

#[cfg(test)]
mod tests;
