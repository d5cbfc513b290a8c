//! The notes' bytes against those of executables that Solo5's own tools wrote.

#![allow(unsafe_code)]

use super::*;

/// The bytes of a value without padding.
fn bytes<T>(value: T) -> Vec<u8> {
    let mut out = vec![0u8; size_of::<T>()];
    // SAFETY: `out` has room for T.
    unsafe { out.as_mut_ptr().cast::<T>().write_unaligned(value) };
    out
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// `readelf -n` of Solo5's test_hello.hvt: descsz 0x74, padding 0, version 1, entries 1.
#[test]
fn empty_manifest_is_that_of_test_hello() {
    let b = bytes(ManifestNote::<1>::new(&[]));
    assert_eq!(b.len(), 20 + 0x74);
    assert_eq!(&b[..12], [6, 0, 0, 0, 0x74, 0, 0, 0, b'M', b'F', b'T', b'1']);
    assert_eq!(&b[12..20], b"Solo5\0\0\0");
    assert_eq!((word(&b, 20), word(&b, 24), word(&b, 28)), (0, 1, 1));
    assert!(b[32..100].iter().all(|&byte| byte == 0));
    assert_eq!(word(&b, 100), 0x4000_0000);
    assert_eq!(b[128], 0, "not attached");
}

/// `readelf -n` of Solo5's test_net.hvt: descsz 0xdc, "service0", type 2.
#[test]
fn net_manifest_is_that_of_test_net() {
    let b = bytes(ManifestNote::<2>::new(&[net("service0")]));
    assert_eq!(b.len(), 20 + 0xdc);
    assert_eq!((word(&b, 4), word(&b, 28)), (0xdc, 2));
    assert_eq!(&b[136..145], b"service0\0");
    assert_eq!(word(&b, 204), 2);
}

#[test]
fn sixty_three_devices_fit() {
    const NAMES: [&str; 63] = {
        const DIGITS: &str = "000102030405060708091011121314151617181920212223242526272829303132\
                              333435363738394041424344454647484950515253545556575859606162";
        let mut names = [""; 63];
        let mut i = 0;
        while i < 63 {
            names[i] = DIGITS.split_at(i * 2).1.split_at(2).0;
            i += 1;
        }
        names
    };
    let devices = NAMES.map(block);
    let b = bytes(ManifestNote::<64>::new(&devices));
    assert_eq!(b.len(), 32 + 64 * 104);
    assert_eq!(word(&b, 32 + 63 * 104 + 68), 1);
    assert_eq!(&b[32 + 63 * 104..][..3], b"62\0");
}

#[test]
fn bad_names_are_refused() {
    for name in ["", "a-b", "a b", "ä", &"x".repeat(68)] {
        let name: &'static str = String::from(name).leak();
        assert!(std::panic::catch_unwind(|| ManifestNote::<2>::new(&[net(name)])).is_err());
    }
    let twice = [net("a"), block("a")];
    assert!(std::panic::catch_unwind(|| ManifestNote::<3>::new(&twice)).is_err());
    let _fits = ManifestNote::<2>::new(&[net(String::leak("x".repeat(67)))]);
}

/// `readelf -n`: the ABI note is target 1, version 2, two zero words.
#[test]
fn abi_note() {
    let b = bytes(ABI_NOTE);
    let version = if cfg!(feature = "abi1") { 1 } else { 2 };
    assert_eq!(&b[..12], [6, 0, 0, 0, 16, 0, 0, 0, b'A', b'B', b'I', b'1']);
    assert_eq!(&b[20..], [1, 0, 0, 0, version, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes(OPENBSD_NOTE).len(), 24);
}
