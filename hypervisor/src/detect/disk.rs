//! Disks: ISO 9660, partition tables, boot sectors, and formats of other programs.

use super::{DetectError, Image, ImageKind};
use crate::host::HostError;

/// ECMA-119 §6.2.1: volume descriptors start at sector 16, of 2,048 bytes.
const DESCRIPTORS: u64 = 16 * 2048;
/// El Torito 1.0 §2: the boot record is at sector 17.
const BOOT_RECORD: u64 = 17 * 2048;

pub(super) fn look(image: &Image<'_>) -> Result<Option<ImageKind>, DetectError> {
    foreign(image)?;
    if image.has(DESCRIPTORS + 1, b"CD001")? {
        let el_torito = image.has(BOOT_RECORD, b"\0CD001\x01EL TORITO SPECIFICATION")?;
        return Ok(Some(ImageKind::Iso9660 { el_torito }));
    }
    // The header is in the second sector, of 512 or 4,096 bytes.
    if image.has(512, b"EFI PART")? || image.has(4096, b"EFI PART")? {
        return Ok(Some(ImageKind::Gpt));
    }
    Ok(boot_sector(image)?.then_some(ImageKind::BootSector))
}

/// 55 AA at the end of the first sector, and something before it: code or partitions.
fn boot_sector(image: &Image<'_>) -> Result<bool, HostError> {
    let Some(sector) = image.bytes::<512>(0)? else { return Ok(false) };
    Ok(sector.ends_with(&[0x55, 0xaa]) && sector[..510].iter().any(|byte| *byte != 0))
}

/// Formats that carry a disk, but are not one byte for byte.
fn foreign(image: &Image<'_>) -> Result<(), DetectError> {
    let found = if image.has(0, b"QFI\xfb")? {
        "qcow2"
    } else if image.has(0, b"KDMV")? {
        "VMDK"
    } else if image.has(0, b"vhdxfile")? {
        "VHDX"
    } else if image.has(0x40, &[0x7f, 0x10, 0xda, 0xbe])? {
        "VDI"
    } else {
        return Ok(());
    };
    Err(DetectError::Unsupported(found))
}
