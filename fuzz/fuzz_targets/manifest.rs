//! A manifest from a stranger: refused, or the same again once it has been written out.

#![no_main]

use hypervisor::modes::hvt::manifest::{MAX_BYTES, MAX_ENTRIES, Manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    assert!(manifest.len() <= MAX_ENTRIES && bytes.len() <= MAX_BYTES);
    let clean = manifest.to_bytes();
    assert_eq!(clean.len(), bytes.len());
    assert_eq!(Manifest::parse(&clean).as_ref(), Ok(&manifest));
    for (index, device) in manifest.devices() {
        assert_eq!(manifest.find(&device.name, device.kind), Some(index));
    }
});
