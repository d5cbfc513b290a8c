//! Hardware addresses of guests that ask for none: locally administered (IEEE 802 §8.2), derived
//! from what the guest is, so that they are the same at every start and differ between machines.

/// The address of network `index` of the VM called `vm` on a machine that `machine` identifies: its
/// machine ID, or a hardware address of its own. Two VMs of one name on one machine have the same.
///
/// It is a hash (FNV-1a, 64 bits) of the three, of which 46 bits are kept.
pub fn stable_mac(machine: &[u8], vm: &str, index: u32) -> [u8; 6] {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x100_0000_01b3;
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    // Each part ends with a byte that a name does not have, so that no two lists run together.
    let parts = [machine, &[0], vm.as_bytes(), &[0], &index.to_le_bytes()];
    let hash = parts.into_iter().flatten().fold(OFFSET, add);
    // The upper bits of the last bytes are mixed least.
    let [a, b, c, d, e, f, ..] = (hash ^ hash >> 32).wrapping_mul(PRIME).to_le_bytes();
    [a & !1 | 2, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::format;

    #[test]
    fn addresses_are_stable_local_and_differ() {
        assert_eq!(stable_mac(b"machine", "web", 0), stable_mac(b"machine", "web", 0));
        let mut seen = BTreeSet::new();
        for machine in [&b""[..], b"a", b"b"] {
            for vm in 0..100 {
                for index in 0..4 {
                    let mac = stable_mac(machine, &format!("vm{vm}"), index);
                    assert_eq!(mac[0] & 3, 2, "local, and not a group's");
                    assert!(seen.insert(mac), "{vm} {index}");
                }
            }
        }
        assert_ne!(stable_mac(b"a", "b", 0), stable_mac(b"", "ab", 0));
    }
}
