//! Whole files: each error by name, and nothing but sound images out of random ones.

use super::*;
use crate::host::HostErrorKind;
use crate::memory::GuestSlice;
use crate::modes::hvt::arch::GuestArch::X86_64;
use crate::modes::hvt::elf::MAX_HEADERS;
use crate::modes::hvt::fixture::{self as f, at, ehdr, image, patched, phdr, ram};
use crate::modes::hvt::layout::MAX_MEMORY;
use crate::modes::hvt::segment::SegmentFault;
use crate::modes::hvt::solo5_abi::GUEST_MIN_BASE;
use alloc::string::ToString;
use alloc::vec;
use core::sync::atomic::{AtomicU64, Ordering};
use proptest::prelude::*;

fn read(file: &[u8]) -> Result<Image, ImageError> {
    Image::read(file, X86_64)
}

fn error(offset: usize, value: &[u8]) -> ImageError {
    read(&patched(image(), offset, value)).unwrap_err()
}

#[test]
fn a_good_image_is_read() {
    let image = read(&image()).unwrap();
    assert_eq!((image.abi_version, image.entry, image.end), (2, Gpa(0x10_0000), Gpa(f::END)));
    let perms: Vec<_> = image.protections().collect();
    let base = GUEST_MIN_BASE;
    let (r, w, x) = (Perms::READ, Perms::WRITE, Perms::EXEC);
    let (text, rodata) = (base..base + 0x1000, base + 0x1000..base + 0x2000);
    assert_eq!(perms, [(text, r | x), (rodata, r), (base + 0x4000..base + 0x7000, r | w)]);
    assert_eq!(image.manifest.len(), 3);
}

#[test]
fn both_abi_versions_are_spoken_and_no_other() {
    for version in 0..=4u32 {
        let file = patched(image(), f::ABI_AT + 24, &version.to_le_bytes());
        let found = read(&file).map(|image| image.abi_version);
        let refused = Err(ImageError::AbiVersion(version));
        assert_eq!(found, if (1..=2).contains(&version) { Ok(version) } else { refused });
    }
    let text = ImageError::AbiVersion(3).to_string();
    assert!(text.starts_with("Executable requests unsupported ABI version 3"));
    assert!(text.ends_with("version is 1 to 2"));
}

#[test]
fn notes_must_be_there_and_for_hvt() {
    assert_eq!(error(f::ABI_AT, &[0]), ImageError::NoAbi);
    assert_eq!(error(f::ABI_AT + 20, &[2]), ImageError::Target(2));
    assert_eq!(error(f::MANIFEST_AT, &[0]), ImageError::NoManifest);
    let version = ImageError::Manifest(ManifestError::Version(7));
    assert_eq!(error(f::MANIFEST_AT + 24, &[7]), version);
    assert!(matches!(error(f::ABI_AT + 4, &[0]), ImageError::Note(_)));
}

#[test]
fn the_entry_is_in_an_executable_segment() {
    let base = GUEST_MIN_BASE;
    for entry in [0, base - 1, base + 0x1000, base + 0x4008, f::END, u64::MAX] {
        assert_eq!(error(ehdr::ENTRY, &entry.to_le_bytes()), ImageError::Entry(entry));
    }
    let last = patched(image(), ehdr::ENTRY, &(base + 0xfff).to_le_bytes());
    assert!(read(&last).is_ok());
    // The text segment itself is not executable any more.
    assert_eq!(error(at(f::TEXT, phdr::FLAGS), &[4]), ImageError::Entry(base));
}

#[test]
fn errors_of_every_part_get_through() {
    assert!(matches!(error(0, b"#!"), ImageError::Elf(ElfError::Magic)));
    let fault = |offset, value: &[u8]| match error(offset, value) {
        ImageError::Segment(SegmentError { index, fault }) => (index, fault),
        other => panic!("{other}"),
    };
    let (index, found) = fault(at(f::DATA, phdr::FLAGS), &[7]);
    assert_eq!((index, found), (f::DATA, SegmentFault::WriteExec));
    let (index, found) = fault(at(f::RODATA, phdr::ALIGN), &[0, 0]);
    assert_eq!((index, found), (f::RODATA, SegmentFault::Alignment(0)));
    let mut file = image();
    for segment in [f::TEXT, f::RODATA, f::DATA] {
        file = patched(file, at(segment, phdr::TYPE), &[0]);
    }
    assert_eq!(read(&file).unwrap_err(), ImageError::NoSegments);
}

/// The words that scripts and people know from Solo5's tender.
#[test]
fn messages_start_with_what_was_wrong() {
    let text = |offset, value: &[u8]| error(offset, value).to_string();
    assert!(text(0, b"MZ").starts_with("invalid or unsupported executable: "));
    assert!(text(f::ABI_AT, &[0]).starts_with("No Solo5 ABI information found in executable"));
    assert!(text(f::MANIFEST_AT, &[0]).starts_with("No Solo5 manifest found in executable"));
    assert!(text(f::MANIFEST_AT + 24, &[0]).starts_with("Solo5 manifest is invalid"));
    let target = text(f::ABI_AT + 20, &[2]);
    assert!(target.starts_with("Executable is not for the solo5-hvt target"));
    assert!(text(f::ABI_AT + 4, &[0]).contains("note does not fall within valid size"));
}

#[test]
fn segments_are_loaded_where_they_belong() {
    let file = image();
    let image = read(&file).unwrap();
    let ram = ram(GUEST_MIN_BASE..f::END);
    image.load(&file[..], &ram.memory, f::END).unwrap();
    let bytes = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        ram.memory.read_bytes(Gpa(at), &mut bytes).unwrap();
        bytes
    };
    assert_eq!(bytes(GUEST_MIN_BASE, 17), [&f::CODE[..], &[0]].concat());
    assert_eq!(bytes(GUEST_MIN_BASE + 0x1000, 4), [6, 0, 0, 0]);
    assert_eq!(bytes(GUEST_MIN_BASE + 0x4000, 20), b"\0\0\0\0\0\0\0\0the data\0\0\0\0");
}

#[test]
fn too_small_a_memory_names_the_smallest_that_would_do() {
    let file = image();
    let image = read(&file).unwrap();
    let ram = ram(GUEST_MIN_BASE..f::END);
    let mem_size = f::END - 1;
    let small = ImageError::MemoryTooSmall { end: f::END, mem_size, smallest: 2 };
    assert!(small.to_string().ends_with("--mem=2"));
    assert_eq!(image.load(&file[..], &ram.memory, mem_size), Err(small));
    assert_eq!(image.check_fits(f::END), Ok(()));

    // With a `.bss` up to the last byte of 4 GiB.
    let most = MAX_MEMORY - GUEST_MIN_BASE - 0x4008;
    let file = patched(file, at(f::DATA, phdr::MEMSZ), &most.to_le_bytes());
    let image = read(&file).unwrap();
    let error = image.check_fits(MAX_MEMORY - 0x20_0000).unwrap_err();
    assert!(matches!(error, ImageError::MemoryTooSmall { smallest: 4096, .. }));
    assert_eq!(image.check_fits(MAX_MEMORY), Ok(()));
}

#[test]
fn memory_that_is_elsewhere_is_an_error() {
    let file = image();
    let image = read(&file).unwrap();
    let ram = ram(GUEST_MIN_BASE + 0x1000..f::END);
    let error = image.load(&file[..], &ram.memory, f::END).unwrap_err();
    assert!(matches!(error, ImageError::Memory { index: f::TEXT, .. }));
}

/// A file that changes between the two reads, or a disk that fails.
#[test]
fn a_file_that_shrinks_is_an_error() {
    let file = image();
    let image = read(&file).unwrap();
    let ram = ram(GUEST_MIN_BASE..f::END);
    let short = &file[..file.len() - 1];
    let changed = ImageError::Changed { index: f::DATA, found: 7, wanted: 8 };
    assert_eq!(image.load(short, &ram.memory, f::END), Err(changed));

    struct Broken;
    impl Blob for Broken {
        fn len(&self) -> u64 {
            1 << 20
        }
        fn read_at(&self, _: u64, _: GuestSlice<'_>) -> Result<usize, HostError> {
            Err(HostError::new(HostErrorKind::Io, "no disk"))
        }
    }
    let error = image.load(&Broken, &ram.memory, f::END).unwrap_err();
    assert!(matches!(error, ImageError::Read { index: f::TEXT, .. }));
    let error = Image::read(&Broken, X86_64).unwrap_err();
    assert!(error.to_string().contains("the ELF header cannot be read: no disk"));
}

/// A file that claims to be endless, and counts the bytes that are read of it.
struct Counting<'a>(&'a [u8], AtomicU64);

impl Blob for Counting<'_> {
    fn len(&self) -> u64 {
        u64::MAX
    }
    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError> {
        self.1.fetch_add(to.len() as u64, Ordering::Relaxed);
        self.0.read_at(offset, to)
    }
}

fn cost(file: &[u8]) -> u64 {
    let blob = Counting(file, AtomicU64::new(0));
    let _ = Image::read(&blob, X86_64);
    blob.1.into_inner()
}

#[test]
fn a_hostile_file_costs_little_memory() {
    assert_eq!(cost(&patched(image(), ehdr::PHNUM, &[0xff, 0xff])), 64);
    // As many program headers as can be, all of them notes of the largest size.
    let mut file = patched(image(), ehdr::PHNUM, &MAX_HEADERS.to_le_bytes());
    let note = file[at(f::MANIFEST, 0)..at(f::MANIFEST + 1, 0)].to_vec();
    let table = note.repeat(MAX_HEADERS.into());
    file.resize(file.len().max(64 + table.len()), 0);
    let headers = 64 + table.len() as u64;
    assert_eq!(cost(&patched(file, 64, &table)), headers + 20 * u64::from(MAX_HEADERS));
    // Segments are not read before they are loaded.
    let huge = patched(image(), at(f::DATA, phdr::FILESZ), &(1u64 << 31).to_le_bytes());
    let huge = patched(huge, at(f::DATA, phdr::MEMSZ), &(1u64 << 31).to_le_bytes());
    assert_eq!(cost(&huge), cost(&image()));
}

/// What every accepted image promises.
fn check(file: &[u8], image: &Image) {
    let mut end = GUEST_MIN_BASE;
    for s in &image.segments {
        assert!(end <= s.range.start && s.range.start < s.range.end && s.range.end <= MAX_MEMORY);
        assert!(s.range.start % 0x1000 == 0 && s.range.end % 0x1000 == 0);
        assert!(s.range.start <= s.vaddr && s.vaddr + s.file_size <= s.range.end);
        assert!(s.file_size == 0 || s.file_offset + s.file_size <= file.len() as u64);
        assert!(!s.perms.contains(Perms::WRITE | Perms::EXEC));
        end = s.range.end;
    }
    assert_eq!(image.end.0, end);
    let entry = image.segments.iter().find(|s| s.range.contains(&image.entry.0)).unwrap();
    assert!(entry.perms.contains(Perms::EXEC));
    assert!(ABI_VERSIONS.contains(&image.abi_version));
    if end <= f::END {
        let ram = ram(GUEST_MIN_BASE..f::END);
        image.load(file, &ram.memory, f::END).unwrap();
    }
}

const HEADERS: usize = 64 + 5 * 56;

/// Values that break arithmetic.
fn interesting() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 0xfff, 0x1000, GUEST_MIN_BASE, f::END, MAX_MEMORY, 1 << 63, u64::MAX];
    prop_oneof![
        prop::sample::select(edges.to_vec()),
        (prop::sample::select(edges.to_vec()), -2i64..=2)
            .prop_map(|(e, d)| e.wrapping_add_signed(d)),
        any::<u64>(),
        0u64..0x1000,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 12 } else { 2048 }, failure_persistence: None, ..Default::default()
    })]

    #[test]
    fn changed_fields_are_refused_or_sound(
        changes in prop::collection::vec((4usize..HEADERS / 8, interesting()), 1..4)
    ) {
        let mut file = image();
        for (word, value) in changes {
            file = patched(file, word * 8, &value.to_le_bytes());
        }
        if let Ok(image) = read(&file) {
            check(&file, &image);
        }
    }

    #[test]
    fn changed_bytes_are_refused_or_sound(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(), whole in any::<bool>(),
    ) {
        let mut file = image();
        for (offset, value) in changes {
            let offset = offset.index(file.len());
            file[offset] = value;
        }
        if !whole {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(image) = read(&file) {
            check(&file, &image);
        }
    }

    #[test]
    fn any_bytes_are_refused(file in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(read(&file).is_err());
    }
}
