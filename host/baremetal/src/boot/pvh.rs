//! PVH: how QEMU's `-kernel`, Xen and others start an ELF kernel in 32-bit mode
//! (Xen's "x86/HVM direct boot ABI", `xen/include/public/arch-x86/hvm/start_info.h`).

use super::{BootError, BootInfo, Physical, RegionKind};
use core::mem::size_of;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What the structure begins with.
pub const MAGIC: u32 = 0x336e_c578;

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_count: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, Clone, Copy)]
struct Module {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, Clone, Copy)]
struct MapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

fn read<T: FromBytes + IntoBytes>(memory: &impl Physical, at: u64) -> Result<T, BootError> {
    let mut value = T::new_zeroed();
    match memory.read(at, value.as_mut_bytes()) {
        true => Ok(value),
        false => Err(BootError::Unreadable(at)),
    }
}

/// The address of element `index` of an array at `base`.
fn element<T>(base: u64, index: u32) -> Result<u64, BootError> {
    let offset = u64::from(index).checked_mul(size_of::<T>() as u64);
    offset.and_then(|offset| base.checked_add(offset)).ok_or(BootError::Unreadable(base))
}

/// Reads the structure at `at`.
///
/// # Errors
/// What is wrong with it.
pub fn parse(memory: &impl Physical, at: u64) -> Result<BootInfo, BootError> {
    let start: StartInfo = read(memory, at)?;
    if start.magic != MAGIC {
        return Err(BootError::Magic(start.magic));
    }
    // Version 0 ends before the memory map.
    if start.version == 0 || start.memory_map_count == 0 {
        return Err(BootError::NoMemoryMap);
    }
    let mut info = BootInfo { rsdp: Some(start.rsdp).filter(|at| *at != 0), ..Default::default() };
    let regions = u32::try_from(super::MAX_REGIONS).unwrap_or(u32::MAX);
    for index in 0..start.memory_map_count.min(regions) {
        let entry: MapEntry = read(memory, element::<MapEntry>(start.memory_map, index)?)?;
        info.add_region(entry.address, entry.size, kind(entry.kind));
    }
    let modules = u32::try_from(super::MAX_MODULES).unwrap_or(u32::MAX);
    for index in 0..start.module_count.min(modules) {
        let module: Module = read(memory, element::<Module>(start.modules, index)?)?;
        info.add_module(module.address, module.size);
    }
    if start.command_line != 0 {
        info.read_command_line(memory, start.command_line);
    }
    Ok(info)
}

/// The kinds are those of the BIOS' E820 map.
pub(super) fn kind(number: u32) -> RegionKind {
    match number {
        1 => RegionKind::Ram,
        3 => RegionKind::AcpiTables,
        _ => RegionKind::Reserved,
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// Memory from address 0x1000.
    struct Bytes(Vec<u8>);

    impl Physical for Bytes {
        fn read(&self, at: u64, to: &mut [u8]) -> bool {
            let from = at.checked_sub(0x1000).and_then(|at| usize::try_from(at).ok());
            let part = from.and_then(|from| self.0.get(from..from.checked_add(to.len())?));
            part.map(|part| to.copy_from_slice(part)).is_some()
        }
    }

    fn memory() -> (Bytes, StartInfo) {
        let start = StartInfo {
            magic: MAGIC,
            version: 1,
            flags: 0,
            module_count: 1,
            modules: 0x1100,
            command_line: 0x1200,
            rsdp: 0xf_5000,
            memory_map: 0x1300,
            memory_map_count: 2,
            reserved: 0,
        };
        let mut bytes = vec![0; 0x400];
        let module = Module { address: 0x20_0000, size: 5, command_line: 0, reserved: 0 };
        bytes[0x100..0x120].copy_from_slice(module.as_bytes());
        bytes[0x200..0x205].copy_from_slice(b"hello");
        let ram = MapEntry { address: 0, size: 0x9_fc00, kind: 1, reserved: 0 };
        let acpi = MapEntry { address: 0x7fe_0000, size: 0x2_0000, kind: 3, reserved: 0 };
        bytes[0x300..0x318].copy_from_slice(ram.as_bytes());
        bytes[0x318..0x330].copy_from_slice(acpi.as_bytes());
        (Bytes(bytes), start)
    }

    fn parsed(change: impl FnOnce(&mut StartInfo)) -> Result<BootInfo, BootError> {
        let (mut bytes, mut start) = memory();
        change(&mut start);
        bytes.0[..size_of::<StartInfo>()].copy_from_slice(start.as_bytes());
        parse(&bytes, 0x1000)
    }

    #[test]
    fn all_parts_are_read() {
        let info = parsed(|_| ()).unwrap();
        assert_eq!(info.regions.len(), 2);
        assert_eq!(info.regions[0].range, 0..0x9_fc00);
        assert_eq!(info.regions[1].kind, RegionKind::AcpiTables);
        assert_eq!(info.modules[..], [0x20_0000..0x20_0005]);
        assert_eq!(&info.command_line[..], "hello");
        assert_eq!(info.rsdp, Some(0xf_5000));
    }

    #[test]
    fn mistakes_are_errors() {
        assert_eq!(parsed(|s| s.magic = 7), Err(BootError::Magic(7)));
        assert_eq!(parsed(|s| s.version = 0), Err(BootError::NoMemoryMap));
        assert_eq!(parsed(|s| s.memory_map_count = 0), Err(BootError::NoMemoryMap));
        assert_eq!(parsed(|s| s.modules = 0x9000), Err(BootError::Unreadable(0x9000)));
        assert!(parsed(|s| s.memory_map = u64::MAX - 3).is_err());
        assert!(parsed(|s| s.memory_map_count = u32::MAX).is_err());
    }

    #[test]
    fn a_command_line_without_end_is_cut() {
        let info = parsed(|s| s.command_line = 0x13ff).unwrap();
        assert!(info.command_line.is_empty());
        assert_eq!(&parsed(|s| s.command_line = 0x1204).unwrap().command_line[..], "o");
    }
}
