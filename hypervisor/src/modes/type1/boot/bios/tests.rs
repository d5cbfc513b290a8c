//! The areas as old kernels read them.

use super::*;
use crate::modes::hvt::fixture::{Ram, ram};
use alloc::vec;
use alloc::vec::Vec;

fn installed(vcpus: u32) -> Ram {
    let ram = ram(0..1 << 20);
    install(&ram.memory, vcpus).unwrap();
    ram
}

fn bytes(ram: &Ram, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ram.memory.read_bytes(Gpa(at), &mut bytes).unwrap();
    bytes
}

#[test]
fn the_data_areas_say_what_memory_there_is() {
    let ram = installed(1);
    let word = |at| ram.memory.read_obj::<u16>(Gpa(at)).unwrap();
    assert_eq!((word(0x40e), word(0x413)), (0x9fc0, 639));
    assert_eq!((word(0x400), word(0x410) >> 9 & 7, word(0x475)), (0x3f8, 1, 0));
    assert_eq!(bytes(&ram, 0x9_fc00, 1), [1]);
    // Each vector leads to a return.
    for vector in [0, 0x10, 0x13, 0xff] {
        let (offset, segment) = (word(vector * 4), word(vector * 4 + 2));
        assert_eq!(bytes(&ram, u64::from(segment) * 16 + u64::from(offset), 1), [0xcf]);
    }
}

#[test]
fn f000_fff0_leads_to_a_reset() {
    let ram = installed(1);
    let jump = bytes(&ram, 0xf_fff0, 16);
    assert_eq!((jump[0], jump[15]), (0xea, 0));
    assert_eq!((&jump[5..13], jump[14]), (&b"01/01/26"[..], 0xfc));
    let word = |at: usize| u64::from(u16::from_le_bytes([jump[at], jump[at + 1]]));
    let code = bytes(&ram, word(3) * 16 + word(1), 6);
    assert_eq!(code, [0xb0, 6, 0xba, 0xf9, 0x0c, 0xee]);
}

#[test]
fn the_multiprocessor_table_says_what_the_madt_says() {
    for vcpus in [1, 3, 255, 300] {
        let ram = installed(vcpus);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        let floating = bytes(&ram, 0xf_0000, 16);
        assert_eq!((&floating[..4], sum(&floating)), (&b"_MP_"[..], 0));
        let at = u32::from_le_bytes(floating[4..8].try_into().unwrap());
        let header = bytes(&ram, at.into(), 44);
        let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let table = bytes(&ram, at.into(), length);
        assert_eq!((&table[..4], sum(&table)), (&b"PCMP"[..], 0));
        assert_eq!(table[36..40], 0xfee0_0000u32.to_le_bytes());
        let (mut rest, mut kinds) = (&table[44..], [0u32; 5]);
        while let [kind, ..] = *rest {
            kinds[usize::from(kind)] += 1;
            rest = &rest[if kind == 0 { 20 } else { 8 }..];
        }
        assert_eq!(kinds, [vcpus.min(255), 2, 1, 1 + 15 + 32 * 4, 2]);
        let count = u16::from_le_bytes([header[34], header[35]]);
        assert_eq!(u32::from(count), kinds.iter().sum::<u32>());
        assert!(u64::from(at) + length as u64 <= 0xf_e000, "below the code");
    }
}
