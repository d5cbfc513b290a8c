//! Every way in which a header can be wrong has an error of its own.

use super::*;
use crate::modes::hvt::fixture::{at, ehdr, image, patched, phdr};
use GuestArch::{Aarch64, X86_64};
use alloc::string::ToString;

fn read(file: &[u8]) -> Result<Elf, ElfError> {
    Elf::read(file, X86_64)
}

fn error(offset: usize, value: &[u8]) -> ElfError {
    read(&patched(image(), offset, value)).unwrap_err()
}

#[test]
fn a_good_file_is_read() {
    let elf = read(&image()).unwrap();
    assert_eq!(elf.entry, 0x10_0000);
    assert_eq!(elf.of_kind(PT_LOAD).map(|(i, _)| i).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(elf.of_kind(PT_NOTE).map(|(i, _)| i).collect::<Vec<_>>(), [3, 4]);
    let read_only = elf.headers[1];
    assert_eq!((read_only.flags.get(), read_only.vaddr.get()), (4, 0x10_1000));
}

#[test]
fn identification_is_checked() {
    assert_eq!(error(0, b"\x7fELG"), ElfError::Magic);
    assert_eq!(error(ehdr::CLASS, &[1]), ElfError::Class(1));
    assert_eq!(error(ehdr::DATA, &[2]), ElfError::ByteOrder(2));
    assert_eq!(error(ehdr::VERSION, &[2]), ElfError::Version(2));
    // OS ABI and its version are anybody's.
    assert!(read(&patched(image(), 7, &[9, 9])).is_ok());
}

#[test]
fn type_and_machine_are_checked() {
    assert_eq!(error(ehdr::TYPE, &[3, 0]), ElfError::NotExecutable(3));
    let machine = ElfError::Machine { found: 183, wanted: 62, name: "x86_64" };
    assert_eq!(error(ehdr::MACHINE, &[183, 0]), machine);
    let arm = patched(image(), ehdr::MACHINE, &[183, 0]);
    assert!(Elf::read(&arm[..], Aarch64).is_ok());
    assert!(Elf::read(&image()[..], Aarch64).is_err());
}

#[test]
fn sizes_and_counts_are_checked() {
    assert_eq!(error(ehdr::EHSIZE, &[63, 0]), ElfError::HeaderSize(63));
    assert_eq!(error(ehdr::PHENTSIZE, &[32, 0]), ElfError::ProgramHeaderSize(32));
    assert_eq!(error(ehdr::PHNUM, &[0, 0]), ElfError::NoProgramHeaders);
    assert_eq!(error(ehdr::PHNUM, &[129, 0]), ElfError::TooManyProgramHeaders(129));
    assert_eq!(error(ehdr::PHNUM, &[255, 255]), ElfError::TooManyProgramHeaders(0xffff));
}

/// A table that lies over the ELF header would be read as both.
#[test]
fn a_table_that_overlaps_the_header_is_refused() {
    for offset in [0u64, 1, 63] {
        let found = error(ehdr::PHOFF, &offset.to_le_bytes());
        assert_eq!(found, ElfError::HeadersOverlap(offset));
    }
}

#[test]
fn a_table_beyond_the_file_or_all_addresses_is_refused() {
    let size = 5 * 56;
    let wrap = u64::MAX - size + 1;
    assert_eq!(error(ehdr::PHOFF, &wrap.to_le_bytes()), ElfError::HeadersWrap(wrap));
    let file = image().len() as u64;
    for offset in [file - size + 1, file, wrap - 1] {
        let found = error(ehdr::PHOFF, &offset.to_le_bytes());
        let what = "the program headers";
        assert_eq!(found, ElfError::Truncated { what, offset, size, file });
    }
}

#[test]
fn every_truncated_header_says_so() {
    let file = image();
    for len in 0..at(5, phdr::TYPE) {
        let error = read(&file[..len]).unwrap_err();
        assert!(matches!(error, ElfError::Truncated { file, .. } if file == len as u64), "{len}");
    }
    assert!(read(&file[..at(5, phdr::TYPE)]).is_ok());
    let text = read(&file[..10]).unwrap_err().to_string();
    assert_eq!(
        text,
        "the ELF header, 64 bytes at offset 0, is beyond the end of the file (10 bytes)"
    );
}
