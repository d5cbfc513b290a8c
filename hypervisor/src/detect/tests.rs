//! One good image of each kind, damaged ones, and anything at all.

use super::*;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

fn of(bytes: &[u8]) -> Result<ImageKind, DetectError> {
    detect(&Owned(bytes.to_vec()))
}

/// A file that gives what it has in small pieces.
struct Owned(Vec<u8>);

impl Blob for Owned {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, to: GuestSlice<'_>) -> Result<usize, HostError> {
        let part = to.part(0, to.len().min(7)).unwrap_or(to);
        Blob::read_at(&self.0[..], offset, part)
    }
}

fn with(length: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for (at, part) in parts {
        bytes[*at..*at + part.len()].copy_from_slice(part);
    }
    bytes
}

fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
    let mut note =
        [u32::try_from(name.len()).unwrap(), u32::try_from(content.len()).unwrap(), kind]
            .map(u32::to_le_bytes)
            .concat();
    for part in [name, content] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

fn elf(notes: &[u8]) -> Vec<u8> {
    let length = (notes.len() as u64).to_le_bytes();
    with(
        120 + notes.len(),
        &[
            (0, b"\x7fELF\x02\x01\x01"),
            (32, &64u64.to_le_bytes()),
            (54, &[56, 0, 1, 0]),
            (64, &4u32.to_le_bytes()),
            (72, &120u64.to_le_bytes()),
            (96, &length),
            (120, notes),
        ],
    )
}

#[cfg(feature = "toml")]
const TOML: &str = "# A guest.\n[vm]\nname = \"v\"\n[vm.virtio]\ntransport = \"mmio\"\n";

fn images() -> Vec<(Vec<u8>, ImageKind)> {
    let solo5 = note(b"Solo5\0", 0x3149_4241, &[0; 8]);
    let pvh = [note(b"GNU\0", 3, &[1; 20]), note(b"Xen\0", 18, &[0; 4])].concat();
    let cd = (0x8000, &b"\x01CD001\x01"[..]);
    let boot = (0x8800, &b"\0CD001\x01EL TORITO SPECIFICATION"[..]);
    let hybrid = (0x1fe, &[0x55, 0xaa][..]);
    let code = (0, &[0xeb, 0xfe][..]);
    let multiboot = [0x02, 0xb0, 0xad, 0x1b, 3, 0, 0, 0, 0xfb, 0x4f, 0x52, 0xe4];
    vec![
        (elf(&solo5), ImageKind::Solo5),
        (elf(&pvh), ImageKind::Pvh),
        (with(0x9000, &[cd]), ImageKind::Iso9660 { el_torito: false }),
        (with(0x9000, &[cd, boot, hybrid, code]), ImageKind::Iso9660 { el_torito: true }),
        (with(4096, &[(512, b"EFI PART"), hybrid, code]), ImageKind::Gpt),
        (with(8192, &[(4096, b"EFI PART")]), ImageKind::Gpt),
        (with(512, &[hybrid, code]), ImageKind::BootSector),
        (with(4096, &[hybrid, (0x202, b"HdrS"), (0, b"MZ")]), ImageKind::BzImage),
        (with(9000, &[(8180, &multiboot), (0, b"\x7fELF\x01\x01")]), ImageKind::Multiboot),
        (with(8192, &[(1024, &multiboot), hybrid, code]), ImageKind::BootSector),
        (with(64, &[(56, b"ARM\x64")]), ImageKind::LinuxImage),
        (with(64, &[(56, b"RSC\x05")]), ImageKind::LinuxImage),
        #[cfg(feature = "toml")]
        (TOML.into(), ImageKind::VirtioManifest),
    ]
}

#[test]
fn every_kind_is_known_and_has_its_mode() {
    for (bytes, kind) in images() {
        assert_eq!(of(&bytes), Ok(kind));
    }
    assert_eq!(ImageKind::Solo5.mode(), ModeKind::Hvt);
    assert_eq!(ImageKind::Gpt.mode(), ModeKind::Type1);
    assert_eq!(ImageKind::VirtioManifest.mode(), ModeKind::VirtIO);
}

#[test]
fn formats_of_other_programs_say_what_to_do() {
    for (at, magic) in
        [(0, &b"QFI\xfb"[..]), (0, b"KDMV"), (0, b"vhdxfile"), (64, b"\x7f\x10\xda\xbe")]
    {
        let text = of(&with(1024, &[(at, magic)])).unwrap_err().to_string();
        assert!(text.contains("qemu-img convert"), "{text}");
    }
}

#[test]
fn what_tells_nothing_lists_what_was_looked_for() {
    let text = elf(&note(b"Solo5\0", 0x3154_464d, &[0; 8]));
    for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &[0; 4096], &text, b"[vm"] {
        assert_eq!(of(bytes), Err(DetectError::Unknown));
    }
    let text = DetectError::Unknown.to_string();
    for word in ["Solo5", "ISO 9660", "GUID", "boot sector", "Linux", "VirtIO manifest", "mode ="] {
        assert!(text.contains(word), "{word}");
    }
}

#[cfg(feature = "toml")]
#[test]
fn descriptions_that_are_no_virtio_manifest() {
    assert_eq!(of(b"[vm]\nname = 'x'\n"), Err(DetectError::Unknown));
    assert_eq!(
        of(b"[vm]\nname = 'x'\nmode = 'type1'"),
        Err(DetectError::Description(ModeKind::Type1))
    );
    let text = of(b"[vm]\nname = 'x'\nmode = 'virtoi'").unwrap_err().to_string();
    assert!(text.contains("line 3") && text.contains("\"virtio\""), "{text}");
}

#[test]
fn loops_and_huge_numbers_end() {
    // Notes without a length, at the end of everything, and headers that lie over each other.
    let endless = [note(b"", 0, b"").as_slice(); 200].concat();
    assert_eq!(of(&elf(&endless)), Err(DetectError::Unknown));
    let good = elf(&note(b"Solo5\0", 0x3149_4241, &[0; 8]));
    for at in [32, 40, 72, 96] {
        let damaged = with(good.len(), &[(0, &good), (at, &[0xff; 8])]);
        let _ = of(&damaged);
    }
    let many = with(good.len(), &[(0, &good), (54, &[0, 0, 0xff, 0xff])]);
    assert_eq!(of(&many), Ok(ImageKind::Solo5));
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(bytes: Vec<u8>) {
        let _ = of(&bytes);
    }

    #[test]
    fn any_damage_has_an_answer(
        which: prop::sample::Index,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let images = images();
        let mut bytes = images[which.index(images.len())].0.clone();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = of(&bytes[..cut.index(bytes.len())]);
        let _ = of(&bytes);
    }
}
