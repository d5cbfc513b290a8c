//! The manifest as the tender filled it in: which devices there are, and their properties.
//!
//! Implements `struct mft` and `struct mft_entry` of Solo5 v0.12.1 `include/mft_abi.h`.

#![allow(unsafe_code)]

use crate::{Error, Result, raw};

/// `mft_type_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Block = 1,
    Net = 2,
}

/// One entry; `properties` are a block device's or a network's.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Entry {
    name: [u8; 68],
    kind: u32,
    properties: [u8; 16],
    backing: u64,
    attached: u8,
}

impl Entry {
    /// Capacity in bytes and block size of a block device.
    pub(crate) fn block(&self) -> (u64, u16) {
        let p = &self.properties;
        let capacity = u64::from_le_bytes([p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]]);
        (capacity, u16::from_le_bytes([p[8], p[9]]))
    }

    /// Hardware address and MTU of a network.
    pub(crate) fn net(&self) -> ([u8; 6], u16) {
        let p = &self.properties;
        ([p[0], p[1], p[2], p[3], p[4], p[5]], u16::from_le_bytes([p[6], p[7]]))
    }

    fn is(&self, kind: Kind, name: &str) -> bool {
        let text = self.name.split(|&byte| byte == 0).next().unwrap_or_default();
        self.kind == kind as u32 && text == name.as_bytes()
    }
}

/// Handle (index in the manifest) and entry of a device.
pub(crate) fn find(kind: Kind, name: &str) -> Result<(u8, Entry)> {
    let entries = entries();
    let position = entries.iter().position(|entry| entry.is(kind, name));
    let index = position.ok_or(Error::NoSuchDevice)?;
    let handle = u8::try_from(index).map_err(|_| Error::NoSuchDevice)?;
    Ok((handle, entries[index]))
}

/// The manifest's entries, the reserved one included.
fn entries() -> &'static [Entry] {
    let address = core::ptr::with_exposed_provenance::<u32>(raw::boot_info().mft);
    // SAFETY: the tender checked the manifest, wrote it here, 8-byte aligned, and leaves it alone.
    unsafe {
        let count = address.add(1).read().min(64);
        core::slice::from_raw_parts(address.add(2).cast::<Entry>(), count as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_found_by_kind_and_whole_name() {
        let mut name = [0; 68];
        name[..4].copy_from_slice(b"disk");
        let mut properties = [0; 16];
        properties[..10].copy_from_slice(&[0, 0, 1, 0, 0, 0, 0, 0, 0, 2]);
        let entry = Entry { name, kind: 1, properties, backing: 0, attached: 1 };
        assert!(entry.is(Kind::Block, "disk"));
        assert!(!entry.is(Kind::Net, "disk"));
        assert!(!entry.is(Kind::Block, "dis"));
        assert!(!entry.is(Kind::Block, "disk0"));
        assert_eq!(entry.block(), (0x1_0000, 512));
        assert_eq!(size_of::<Entry>(), 104);
    }
}
