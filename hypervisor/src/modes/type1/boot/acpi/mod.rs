//! The ACPI tables of the machine: what an operating system finds there besides PCI.
//!
//! Order: [`Tables::build`] from [`Facts`]; then either [`Tables::install`] where no firmware is,
//! or [`super::fw_cfg`] hands them to firmware, which places them itself.
//!
//! Source: ACPI 6.5 §5 and §19; the tables that have a type of their own come from `acpi_tables`.
//! The tables point at each other: until they are placed a pointer holds an offset, and
//! [`Tables::pointers`] lists where they are.

mod dsdt;
mod fadt;
mod madt;

use super::place;
use crate::memory::{Gpa, GuestMemory};
use crate::modes::type1::layout::IO_APIC;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, facs::FACS};
use alloc::vec::Vec;
use core::ops::Range;

const OEM: [u8; 6] = *b"REDOX ";
const OEM_TABLE: [u8; 8] = *b"REDOXHYP";
const OEM_REVISION: u32 = 1;
/// Offset of the checksum in every table's header.
pub const CHECKSUM: usize = 9;
const HEADER: u32 = 36;
/// Where PCI's window begins in machines with little RAM.
const LOWEST_WINDOW: u64 = 2 << 30;

/// What the tables say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Processors, with local APIC IDs from 0 on; at most 255.
    pub vcpus: u32,
    /// Where PCI's configuration space is mapped: 1 MiB for each bus, below 4 GiB.
    pub ecam: Option<Range<u64>>,
    /// Addresses below 4 GiB that the root bridge passes on to PCI.
    pub windows: Vec<Range<u32>>,
    /// Addresses above 4 GiB that it passes on.
    pub window64: Option<Range<u64>>,
}

/// The addresses below 4 GiB that are PCI's: all that are neither RAM, nor ECAM, nor the interrupt
/// controllers' and firmware's. Firmware puts BARs anywhere in them.
pub fn windows(ram: &[Range<u64>], ecam: Option<&Range<u64>>) -> Vec<Range<u32>> {
    let low = ram.first().map_or(0, |range| range.end).max(LOWEST_WINDOW);
    let hole = ecam.cloned().unwrap_or(IO_APIC.start..IO_APIC.start);
    let both = [low..hole.start.min(IO_APIC.start), hole.end.max(low)..IO_APIC.start];
    let narrow =
        |range: Range<u64>| Some(u32::try_from(range.start).ok()?..u32::try_from(range.end).ok()?);
    both.into_iter().filter_map(narrow).filter(|range| !range.is_empty()).collect()
}

/// A place in the blob that holds the offset of another place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// Offset of the pointer.
    pub at: usize,
    /// Its width in bytes: 4 or 8.
    pub width: u8,
}

/// The tables, not yet placed.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// All of them but the RSDP. It begins at a multiple of 64, as the FACS wants.
    pub blob: Vec<u8>,
    /// Where each table with a checksum is in the blob.
    pub tables: Vec<Range<usize>>,
    /// The pointers in the blob.
    pub pointers: Vec<Pointer>,
    /// Offset of the XSDT, which the RSDP points to.
    pub xsdt: usize,
}

/// Why tables cannot be placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// They are larger than the place for them.
    #[error("the ACPI tables have {0} bytes and do not fit below 1 MiB; give the VM fewer vCPUs")]
    TooLarge(usize),
    /// The place is no memory.
    #[error("the ACPI tables cannot be written: {0}; give the VM at least 2M")]
    Memory(#[from] crate::memory::MemoryError),
}

impl Tables {
    /// Builds all tables.
    pub fn build(facts: &Facts) -> Self {
        let mut tables = Self::default();
        let mut facs = Vec::new();
        FACS::new().to_aml_bytes(&mut facs);
        let facs = tables.append(&facs).start;
        let dsdt = tables.table(*b"DSDT", 2, &dsdt::body(facts));
        let fadt = tables.fadt(facs, dsdt);
        let madt = tables.table(*b"APIC", madt::REVISION, &madt::body(facts));
        let mut listed = Vec::from([fadt, madt]);
        if let Some(ecam) = &facts.ecam {
            listed.push(tables.table(*b"MCFG", 1, &mcfg(ecam)));
        }
        tables.add_xsdt(&listed);
        tables
    }

    /// Writes the tables to where operating systems look for them, and returns the RSDP's address.
    ///
    /// # Errors
    /// [`AcpiError`].
    pub fn install(mut self, memory: &GuestMemory) -> Result<Gpa, AcpiError> {
        let rsdp = place::ACPI.start;
        let base = rsdp + 64;
        if self.blob.len() as u64 > place::ACPI.end - base {
            return Err(AcpiError::TooLarge(self.blob.len()));
        }
        self.relocate(base);
        memory.write_bytes(Gpa(base), &self.blob)?;
        memory.write_bytes(Gpa(rsdp), &self.rsdp(base))?;
        Ok(Gpa(rsdp))
    }

    /// The RSDP for tables at `base`.
    pub fn rsdp(&self, base: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Rsdp::new(OEM, base + self.xsdt as u64).to_aml_bytes(&mut bytes);
        bytes
    }

    /// Turns offsets into addresses and corrects the checksums.
    fn relocate(&mut self, base: u64) {
        for pointer in &self.pointers {
            let field = &mut self.blob[pointer.at..pointer.at + usize::from(pointer.width)];
            let offset = field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            let address = (base + offset).to_le_bytes();
            field.copy_from_slice(&address[..usize::from(pointer.width)]);
        }
        for table in &self.tables {
            let table = &mut self.blob[table.clone()];
            table[CHECKSUM] = 0;
            let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            table[CHECKSUM] = sum.wrapping_neg();
        }
    }

    /// Appends a table with a body behind its header; returns its offset.
    fn table(&mut self, signature: [u8; 4], revision: u8, body: &[u8]) -> usize {
        let mut table = Sdt::new(signature, HEADER, revision, OEM, OEM_TABLE, OEM_REVISION);
        table.append_slice(body);
        let range = self.append(table.as_slice());
        self.tables.push(range.clone());
        range.start
    }

    fn fadt(&mut self, facs: usize, dsdt: usize) -> usize {
        let mut bytes = Vec::new();
        fadt::build(facs as u64, dsdt as u64).to_aml_bytes(&mut bytes);
        let range = self.append(&bytes);
        self.tables.push(range.clone());
        self.pointers
            .extend(fadt::POINTERS.map(|(at, width)| Pointer { at: range.start + at, width }));
        range.start
    }

    fn add_xsdt(&mut self, listed: &[usize]) {
        let body: Vec<u8> = listed.iter().flat_map(|at| (*at as u64).to_le_bytes()).collect();
        self.xsdt = self.table(*b"XSDT", 1, &body);
        let first = self.xsdt + HEADER as usize;
        self.pointers.extend((0..listed.len()).map(|i| Pointer { at: first + i * 8, width: 8 }));
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.blob.len().next_multiple_of(16);
        self.blob.resize(start, 0);
        self.blob.extend_from_slice(bytes);
        start..self.blob.len()
    }
}

/// PCI Firmware 3.3 §4.1.2: one segment group from bus 0 on.
fn mcfg(ecam: &Range<u64>) -> Vec<u8> {
    let buses = ((ecam.end - ecam.start) >> 20).clamp(1, 256);
    let last = u8::try_from(buses - 1).unwrap_or(u8::MAX);
    let mut body = Vec::from([0; 8]);
    body.extend_from_slice(&ecam.start.to_le_bytes());
    body.extend_from_slice(&[0, 0, 0, last, 0, 0, 0, 0]);
    body
}

#[cfg(test)]
mod tests;
