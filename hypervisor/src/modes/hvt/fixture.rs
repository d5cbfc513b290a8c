//! For tests: a small, good image to be spoiled, and guest memory to load it into.

#![allow(unsafe_code)]

use super::solo5_abi::GUEST_MIN_BASE;
use crate::memory::{Gpa, GuestMemory, HostBlock};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Program headers of [`image`], by index.
pub const TEXT: usize = 0;
/// Read-only data; the notes are in it.
pub const RODATA: usize = 1;
/// Data and `.bss`.
pub const DATA: usize = 2;
/// The ABI note.
pub const ABI: usize = 3;
/// The manifest note.
pub const MANIFEST: usize = 4;

/// Offsets in the ELF header.
pub mod ehdr {
    pub const CLASS: usize = 4;
    pub const DATA: usize = 5;
    pub const TYPE: usize = 16;
    pub const MACHINE: usize = 18;
    pub const VERSION: usize = 20;
    pub const ENTRY: usize = 24;
    pub const PHOFF: usize = 32;
    pub const EHSIZE: usize = 52;
    pub const PHENTSIZE: usize = 54;
    pub const PHNUM: usize = 56;
}

/// Offsets in a program header.
pub mod phdr {
    pub const TYPE: usize = 0;
    pub const FLAGS: usize = 4;
    pub const OFFSET: usize = 8;
    pub const FILESZ: usize = 32;
    pub const MEMSZ: usize = 40;
    pub const ALIGN: usize = 48;
}

/// Offset in the file of field `field` of program header `index`.
pub const fn at(index: usize, field: usize) -> usize {
    64 + 56 * index + field
}

/// Where the parts of [`image`] are in the file.
pub const TEXT_AT: usize = 0x200;
/// The ABI note.
pub const ABI_AT: usize = 0x220;
/// The manifest note.
pub const MANIFEST_AT: usize = 0x244;
/// End of the image in memory.
pub const END: u64 = GUEST_MIN_BASE + 0x7000;
/// What the text segment is made of.
pub const CODE: &[u8; 16] = b"\xf4code of a guest";

/// An entry of a manifest, as C lays it out.
pub fn entry(name: &[u8], kind: u32) -> Vec<u8> {
    let mut raw = vec![0; 104];
    raw[..name.len()].copy_from_slice(name);
    raw[68..72].copy_from_slice(&kind.to_le_bytes());
    raw
}

/// A manifest with these entries after the reserved one.
pub fn manifest(devices: &[(&str, u32)]) -> Vec<u8> {
    let count = u32::try_from(devices.len() + 1).unwrap();
    let mut raw = [1, count].map(u32::to_le_bytes).concat();
    raw.extend(entry(b"", 1 << 30));
    raw.extend(devices.iter().flat_map(|(name, kind)| entry(name.as_bytes(), *kind)));
    raw
}

/// A Solo5 note with `pad` zero bytes before its content.
pub fn note(kind: &[u8; 4], pad: usize, content: &[u8]) -> Vec<u8> {
    let descsz = u32::try_from(pad + content.len()).unwrap();
    let mut raw = [6, descsz, u32::from_le_bytes(*kind)].map(u32::to_le_bytes).concat();
    raw.extend(b"Solo5\0\0\0");
    raw.extend(vec![0; pad]);
    raw.extend(content);
    raw
}

fn header(kind: u32, flags: u32, offset: usize, vaddr: u64, sizes: [u64; 2]) -> Vec<u8> {
    let mut raw = [kind, flags].map(u32::to_le_bytes).concat();
    let align = if kind == 1 { 0x1000 } else { 4 };
    raw.extend(
        [offset as u64, vaddr, vaddr, sizes[0], sizes[1], align].map(u64::to_le_bytes).concat(),
    );
    raw
}

/// An image for x86_64 and hvt ABI 2 whose manifest has these devices.
pub fn image_with(devices: &[(&str, u32)]) -> Vec<u8> {
    let base = GUEST_MIN_BASE;
    let abi = note(b"ABI1", 0, &[1u32, 2, 0, 0].map(u32::to_le_bytes).concat());
    let mft = note(b"MFT1", 4, &manifest(devices));
    let (abi_size, mft_size) = (abi.len() as u64, mft.len() as u64);
    let rodata = abi_size + mft_size;
    let data_at = MANIFEST_AT + mft.len();

    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([base, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 5, 0, 0, 0].map(u16::to_le_bytes).concat());
    file.extend(header(1, 5, TEXT_AT, base, [16, 16]));
    file.extend(header(1, 4, ABI_AT, base + 0x1000, [rodata, rodata]));
    file.extend(header(1, 6, data_at, base + 0x4008, [8, 0x2000]));
    file.extend(header(4, 4, ABI_AT, base + 0x1000, [abi_size, abi_size]));
    file.extend(header(4, 4, MANIFEST_AT, base + 0x1024, [mft_size, mft_size]));
    file.resize(TEXT_AT, 0);
    file.extend(CODE);
    file.resize(ABI_AT, 0);
    file.extend(abi);
    file.extend(mft);
    file.extend(b"the data");
    file
}

/// [`image_with`] a block device "storage" and a network "service".
pub fn image() -> Vec<u8> {
    image_with(&[("storage", 1), ("service", 2)])
}

/// The file with `value` in place of what is at `offset`.
pub fn patched(mut file: Vec<u8>, offset: usize, value: &[u8]) -> Vec<u8> {
    file[offset..offset + value.len()].copy_from_slice(value);
    file
}

/// Zeroed guest memory that owns its bytes.
pub struct Ram {
    /// The guest's view of it.
    pub memory: GuestMemory,
}

/// Guest memory at these addresses, multiples of 8.
pub fn ram(range: Range<u64>) -> Ram {
    let len = range.end - range.start;
    let mut memory = GuestMemory::new();
    memory.add(HostBlock::zeroed(Gpa(range.start), len)).unwrap();
    Ram { memory }
}
