//! Notes are found where Solo5 finds them, and refused where it refuses them.

use super::*;
use crate::modes::hvt::arch::GuestArch;
use crate::modes::hvt::fixture::{self as f, at, image, patched, phdr};
use alloc::string::ToString;

fn elf(file: &[u8]) -> Elf {
    Elf::read(file, GuestArch::X86_64).unwrap()
}

fn abi_of(file: &[u8]) -> Result<Option<AbiInfo>, NoteError> {
    abi(file, &elf(file))
}

fn manifest_of(file: &[u8]) -> Result<Option<Vec<u8>>, NoteError> {
    manifest(file, &elf(file))
}

#[test]
fn both_notes_are_found() {
    let file = image();
    assert_eq!(abi_of(&file), Ok(Some(AbiInfo { target: 1, version: 2 })));
    let content = f::manifest(&[("storage", 1), ("service", 2)]);
    assert_eq!(manifest_of(&file), Ok(Some(content)));
}

#[test]
fn notes_of_others_are_passed_over() {
    for (offset, value) in [(0, 5), (8, b'X'), (12, b's'), (17, b'x')] {
        let file = patched(image(), f::ABI_AT + offset, &[value]);
        assert_eq!(abi_of(&file), Ok(None), "{offset}");
        assert!(manifest_of(&file).unwrap().is_some());
    }
    // Not a note at all, and a note that is too small for Solo5's.
    let other = patched(image(), at(f::ABI, phdr::TYPE), &[9]);
    assert_eq!(abi_of(&other), Ok(None));
    for size in 12..20u64 {
        let small = patched(image(), at(f::ABI, phdr::FILESZ), &size.to_le_bytes());
        assert_eq!(abi_of(&small), Ok(None));
    }
}

#[test]
fn a_program_header_too_small_for_any_note_is_refused() {
    for size in 0..12u64 {
        let file = patched(image(), at(f::ABI, phdr::FILESZ), &size.to_le_bytes());
        let error = NoteError::Size { index: f::ABI, size, min: 12, max: u64::MAX };
        assert_eq!(abi_of(&file), Err(error.clone()));
        assert!(error.to_string().contains("note does not fall within valid size"));
    }
}

#[test]
fn sizes_of_the_content_are_checked() {
    let descsz = |at: usize, size: u32| patched(image(), at + 4, &size.to_le_bytes());
    for (size, min, max) in [(0, 1, 16), (17, 1, 16), (u32::MAX, 1, 16), (7, 8, 32)] {
        let error = NoteError::Size { index: f::ABI, size: size.into(), min, max };
        assert_eq!(abi_of(&descsz(f::ABI_AT, size)), Err(error));
    }
    for size in [0, 4, 6669, u32::MAX] {
        let error = manifest_of(&descsz(f::MANIFEST_AT, size)).unwrap_err();
        assert!(matches!(error, NoteError::Size { index: f::MANIFEST, min: 5, .. }), "{size}");
    }
    // The smallest content that there can be.
    let one = manifest_of(&descsz(f::MANIFEST_AT, 5)).unwrap().unwrap();
    assert_eq!(one, [1]);
}

/// The limit is that of 64 entries even where the program header has room for more.
#[test]
fn a_huge_note_is_not_read() {
    let file = patched(image(), at(f::MANIFEST, phdr::FILESZ), &u64::MAX.to_le_bytes());
    let file = patched(file, f::MANIFEST_AT + 4, &6669u32.to_le_bytes());
    let error = NoteError::Size { index: f::MANIFEST, size: 6669, min: 5, max: 6668 };
    assert_eq!(manifest_of(&file), Err(error));
}

#[test]
fn a_note_beyond_the_file_is_refused() {
    let file = image();
    for offset in [file.len() as u64 - 19, file.len() as u64, u64::MAX - 19, u64::MAX] {
        let file = patched(image(), at(f::ABI, phdr::OFFSET), &offset.to_le_bytes());
        let error = abi_of(&file).unwrap_err();
        assert!(matches!(error, NoteError::Read { index: f::ABI, .. }), "{offset:#x}");
    }
    // The header is there, its content is cut off.
    let cut = &file[..f::MANIFEST_AT + 30];
    assert!(matches!(manifest_of(cut), Err(NoteError::Read { index: f::MANIFEST, .. })));
}
