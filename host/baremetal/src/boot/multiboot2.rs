//! Multiboot2: how GRUB and others start a kernel, after a BIOS or UEFI
//! (Multiboot2 Specification 2.0, §3.4 to §3.6).

use super::{BootError, BootInfo, MAX_COMMAND_LINE, Physical, pvh};

/// What is in EAX at the start.
pub const MAGIC: u32 = 0x36d7_6289;

const HEADER: u64 = 8;
/// Tags that are looked at: more than any loader writes.
const MAX_TAGS: u32 = 256;

const END: u32 = 0;
const COMMAND_LINE: u32 = 1;
const MODULE: u32 = 3;
const MEMORY_MAP: u32 = 6;
const ACPI_OLD: u32 = 14;
const ACPI_NEW: u32 = 15;

fn word(memory: &impl Physical, at: u64) -> Result<u32, BootError> {
    let mut bytes = [0; 4];
    match memory.read(at, &mut bytes) {
        true => Ok(u32::from_le_bytes(bytes)),
        false => Err(BootError::Unreadable(at)),
    }
}

fn long(memory: &impl Physical, at: u64) -> Result<u64, BootError> {
    Ok(u64::from(word(memory, at + 4)?) << 32 | u64::from(word(memory, at)?))
}

/// Reads the structure at `at`.
///
/// # Errors
/// What is wrong with it.
pub fn parse(memory: &impl Physical, at: u32) -> Result<BootInfo, BootError> {
    let at = u64::from(at);
    let end = at + u64::from(word(memory, at)?);
    let mut info = BootInfo::default();
    let mut tag = at + 8;
    for _ in 0..MAX_TAGS {
        if tag + HEADER > end {
            break;
        }
        let (kind, size) = (word(memory, tag)?, u64::from(word(memory, tag + 4)?));
        if kind == END || size < HEADER || tag + size > end {
            break;
        }
        match kind {
            COMMAND_LINE if size <= MAX_COMMAND_LINE as u64 => {
                info.read_command_line(memory, tag + HEADER);
            }
            MODULE => {
                let (start, end) = (word(memory, tag + 8)?, word(memory, tag + 12)?);
                info.add_module(u64::from(start), u64::from(end.saturating_sub(start)));
            }
            MEMORY_MAP => memory_map(memory, tag, size, &mut info)?,
            // A copy of the pointer itself. The newer form is the better one.
            ACPI_OLD => info.rsdp = info.rsdp.or(Some(tag + HEADER)),
            ACPI_NEW => info.rsdp = Some(tag + HEADER),
            _ => {}
        }
        tag += size.next_multiple_of(8);
    }
    if info.regions.is_empty() { Err(BootError::NoMemoryMap) } else { Ok(info) }
}

fn memory_map(
    memory: &impl Physical,
    tag: u64,
    size: u64,
    info: &mut BootInfo,
) -> Result<(), BootError> {
    let entry_size = u64::from(word(memory, tag + 8)?);
    if entry_size < 24 {
        return Ok(());
    }
    let mut entry = tag + 16;
    while entry + entry_size <= tag + size && !info.regions.is_full() {
        let kind = pvh::kind(word(memory, entry + 16)?);
        info.add_region(long(memory, entry)?, long(memory, entry + 8)?, kind);
        entry += entry_size;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::super::{Region, RegionKind};
    use super::*;
    use crate::acpi::tests::Pieces;
    use std::vec;
    use std::vec::Vec;

    fn tag(kind: u32, body: &[u8]) -> Vec<u8> {
        let size = u32::try_from(8 + body.len()).unwrap();
        let mut tag = [kind.to_le_bytes(), size.to_le_bytes()].concat();
        tag.extend(body);
        tag.resize(tag.len().next_multiple_of(8), 0);
        tag
    }

    fn parsed(tags: &[Vec<u8>]) -> Result<BootInfo, BootError> {
        let body = tags.concat();
        let size = u32::try_from(8 + body.len()).unwrap();
        let bytes = [&size.to_le_bytes()[..], &[0; 4], &body].concat();
        parse(&Pieces(vec![(0x9000, bytes)]), 0x9000)
    }

    fn map() -> Vec<u8> {
        let mut body = [24u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
        for (base, length, kind) in [(0u64, 0x9_f000u64, 1u64), (0x10_0000, 0x100_0000, 3)] {
            body.extend([base, length, kind].map(u64::to_le_bytes).concat());
        }
        tag(MEMORY_MAP, &body)
    }

    #[test]
    fn all_parts_are_read() {
        let module = [0x20_0000u32.to_le_bytes(), 0x20_0007u32.to_le_bytes()].concat();
        let tags = [
            tag(COMMAND_LINE, b"log=debug\0"),
            tag(MODULE, &[&module[..], b"name\0"].concat()),
            tag(99, b"what nobody knows"),
            tag(ACPI_NEW, b"RSD PTR new"),
            tag(ACPI_OLD, b"RSD PTR old"),
            map(),
            tag(END, b""),
            tag(MODULE, &module),
        ];
        let info = parsed(&tags).unwrap();
        assert_eq!(&info.command_line[..], "log=debug");
        assert_eq!(info.modules[..], [0x20_0000..0x20_0007]);
        let acpi = Region { range: 0x10_0000..0x110_0000, kind: RegionKind::AcpiTables };
        assert_eq!(info.regions[1], acpi);
        let before = 8 + tags[..3].iter().map(Vec::len).sum::<usize>() as u64;
        assert_eq!(info.rsdp, Some(0x9000 + before + 8));
    }

    #[test]
    fn mistakes_end_the_list_or_are_errors() {
        assert_eq!(parsed(&[]), Err(BootError::NoMemoryMap));
        let mut lying = tag(COMMAND_LINE, b"x");
        lying[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parsed(&[map(), lying.clone()]).unwrap().regions.len(), 2);
        lying[4..8].copy_from_slice(&0u32.to_le_bytes());
        assert_eq!(parsed(&[lying, map()]), Err(BootError::NoMemoryMap));
        assert_eq!(parse(&Pieces::default(), 0), Err(BootError::Unreadable(0)));
        let mut short = map();
        short[8..12].copy_from_slice(&1u32.to_le_bytes());
        assert_eq!(parsed(&[short]), Err(BootError::NoMemoryMap));
    }
}
