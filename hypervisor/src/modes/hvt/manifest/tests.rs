//! What a manifest may be, and what the guest gets of it.

use super::*;
use crate::modes::hvt::fixture::{entry, manifest, patched};
use DeviceKind::{Block, Net};
use alloc::string::ToString;
use proptest::prelude::*;

/// Offsets of the second entry and of its fields.
const SECOND: usize = 8 + 104;
const KIND: usize = SECOND + 68;
const ATTACHED: usize = SECOND + 96;

fn parse(devices: &[(&str, u32)]) -> Manifest {
    Manifest::parse(&manifest(devices)).unwrap()
}

fn error(offset: usize, value: &[u8]) -> ManifestError {
    Manifest::parse(&patched(manifest(&[("storage", 1)]), offset, value)).unwrap_err()
}

#[test]
fn devices_are_found_by_name_and_kind() {
    let m = parse(&[("a", 1), ("b", 2), ("a", 2), ("B2", 1)]);
    assert_eq!(m.len(), 5);
    for (name, kind, index) in [("a", Block, 1), ("b", Net, 2), ("a", Net, 3), ("B2", Block, 4)] {
        assert_eq!(m.find(name, kind), Some(index));
        assert_eq!(m.device(index).unwrap().kind, kind);
    }
    for (name, kind) in [("b", Block), ("b2", Block), ("", Block), ("aa", Net)] {
        assert_eq!(m.find(name, kind), None);
    }
    assert_eq!((m.device(0), m.device(5)), (None, None));
}

#[test]
fn head_and_size_are_checked() {
    assert_eq!(Manifest::parse(&[1; 7]), Err(ManifestError::Size { found: 7, wanted: 8 }));
    assert_eq!(error(0, &[2]), ManifestError::Version(2));
    for count in [0, 65, u32::MAX] {
        assert_eq!(error(4, &count.to_le_bytes()), ManifestError::Entries(count));
    }
    for count in [1, 3, 64] {
        let size = ManifestError::Size { found: 216, wanted: 8 + 104 * usize::from(count) };
        assert_eq!(error(4, &[count]), size);
    }
    let mut long = manifest(&[]);
    long.push(0);
    assert_eq!(Manifest::parse(&long), Err(ManifestError::Size { found: 113, wanted: 112 }));
}

#[test]
fn sixty_three_devices_are_the_most() {
    let names: Vec<String> = (0..64).map(|i| alloc::format!("net{i}")).collect();
    let devices: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 2)).collect();
    let raw = manifest(&devices[..63]);
    assert_eq!(raw.len(), MAX_BYTES);
    assert_eq!(Manifest::parse(&raw).unwrap().find("net62", Net), Some(63));
    assert_eq!(Manifest::parse(&manifest(&devices)), Err(ManifestError::Entries(65)));
}

#[test]
fn the_first_entry_is_the_reserved_one() {
    assert_eq!(error(8, b"x"), ManifestError::NoReserved);
    for kind in [1u32, 2, (1 << 30) + 1] {
        assert_eq!(error(8 + 68, &kind.to_le_bytes()), ManifestError::NoReserved);
    }
}

#[test]
fn entries_are_checked() {
    assert_eq!(error(SECOND + 67, b"x"), ManifestError::Unterminated(1));
    assert_eq!(error(8 + 67, b"x"), ManifestError::Unterminated(0));
    assert_eq!(error(ATTACHED, &[2]), ManifestError::Attached(1));
    for kind in [0u32, 3, (1 << 30) - 1] {
        let unknown = ManifestError::UnknownType { index: 1, kind };
        assert_eq!(error(KIND, &kind.to_le_bytes()), unknown);
    }
    for name in [&b"\0"[..], b"sto/rage", b"\xff\xfe", b"sto rage", b"../"] {
        assert_eq!(error(SECOND, name), ManifestError::Name(1));
    }
    let twice = Manifest::parse(&manifest(&[("a", 1), ("b", 1), ("a", 1)]));
    assert_eq!(twice, Err(ManifestError::Duplicate(1, 3)));
}

/// Private fields, gaps and what follows a name may be anything and do not get to the guest.
#[test]
fn what_does_not_count_is_dropped() {
    let mut raw = manifest(&[("storage", 1)]);
    let clean = raw.clone();
    raw[SECOND + 8..SECOND + 67].fill(0xaa);
    raw[SECOND + 72..ATTACHED].fill(0xbb);
    raw[ATTACHED + 1..].fill(0xcc);
    assert_eq!(Manifest::parse(&raw).unwrap().to_bytes(), clean);
}

#[test]
fn reserved_entries_need_no_device() {
    let mut raw = manifest(&[("x", 1)]);
    raw.splice(SECOND.., entry(b"any thing", (1 << 30) + 7));
    let m = Manifest::parse(&raw).unwrap();
    assert_eq!((m.devices().count(), m.unattached().count()), (0, 0));
    assert_eq!(m.to_bytes()[KIND..KIND + 4], ((1u32 << 30) + 7).to_le_bytes());
}

#[test]
fn the_guest_sees_what_is_attached() {
    let mut m = parse(&[("storage", 1), ("service", 2)]);
    let missing: Vec<String> = m.unattached().map(|device| device.to_string()).collect();
    let text =
        |name, kind| alloc::format!("Device '{name}' of type {kind} declared but not attached.");
    assert_eq!(missing, [text("storage", "BLOCK_BASIC"), text("service", "NET_BASIC")]);
    assert!(!m.has_net());

    assert_eq!(m.attach_block(1, 0x1_0000_2000, Some(4096)), Ok(4096));
    m.attach_net(2, [2, 3, 4, 5, 6, 7], 1500).unwrap();
    assert!(m.has_net());
    assert_eq!(m.unattached().count(), 0);
    let raw = m.to_bytes();
    assert_eq!(raw[SECOND..SECOND + 8], *b"storage\0");
    assert_eq!(raw[SECOND + 72..SECOND + 82], [0, 0x20, 0, 0, 1, 0, 0, 0, 0, 0x10]);
    assert_eq!(raw[SECOND + 82..ATTACHED], [0; 14]);
    assert_eq!(raw[ATTACHED..SECOND + 104], [1, 0, 0, 0, 0, 0, 0, 0]);
    let net = SECOND + 104;
    assert_eq!(raw[net + 72..net + 80], [2, 3, 4, 5, 6, 7, 0xdc, 5]);
    assert_eq!(raw[net + 96], 1);
}

#[test]
fn only_the_right_kind_can_be_attached() {
    let mut m = parse(&[("storage", 1), ("service", 2)]);
    let none = |index, kind| AttachError::NoSuchDevice { index, kind };
    for index in [0, 2, 3, usize::MAX] {
        assert_eq!(m.attach_block(index, 512, None), Err(none(index, Block)));
    }
    assert_eq!(m.attach_net(1, [0; 6], 0), Err(none(1, Net)));
    assert!(m.attach_block(1, 511, None).is_err());
    assert_eq!(m.unattached().count(), 2);
}

#[test]
fn an_empty_manifest_is_a_good_one() {
    assert_eq!(Manifest::parse(&Manifest::empty().to_bytes()), Ok(Manifest::empty()));
    assert_eq!(Manifest::empty().to_bytes(), manifest(&[]));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 512 }, failure_persistence: None, ..Default::default()
    })]

    /// Whatever bytes are changed: no panic, and what is accepted keeps its promises.
    #[test]
    fn mutations_are_refused_or_sound(
        changes in prop::collection::vec((0usize..216, any::<u8>()), 0..8), cut in 0usize..=216
    ) {
        let mut raw = manifest(&[("storage", 1)]);
        for (offset, value) in changes {
            raw[offset] = value;
        }
        raw.truncate(cut.max(200));
        if let Ok(mut m) = Manifest::parse(&raw) {
            prop_assert!(m.len() <= MAX_ENTRIES);
            prop_assert_eq!(m.to_bytes().len(), raw.len());
            for (index, device) in m.clone().devices() {
                prop_assert!(device.name.bytes().all(|b| b.is_ascii_alphanumeric()));
                prop_assert_eq!(m.find(&device.name, device.kind), Some(index));
                prop_assert_eq!(m.attach_block(index, 512, None).is_ok(), device.kind == Block);
            }
        }
    }

    #[test]
    fn names_come_back(name in "[A-Za-z0-9]{1,67}", kind in 1u32..=2) {
        let m = parse(&[(&name, kind)]);
        prop_assert_eq!(&m.device(1).unwrap().name, &name);
        prop_assert_eq!(m.to_bytes(), manifest(&[(&name, kind)]));
    }
}

#[test]
fn a_name_fills_its_field() {
    let name = core::str::from_utf8(&[b'n'; NAME_MAX]).unwrap();
    assert_eq!(parse(&[(name, 2)]).find(name, Net), Some(1));
}
