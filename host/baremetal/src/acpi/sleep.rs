//! How to power off: the values of `\_S5` in the DSDT's AML (ACPI 6.5 §7.4.2, §20.2).
//!
//! AML is not run. The name is looked for where an object of that name is defined as a package of
//! constants, which is how firmware writes it.

/// The sleep types for the PM1a and PM1b control registers, bits 10..13.
pub fn power_off(aml: &[u8]) -> Option<(u16, u16)> {
    let found = |at: &usize| aml.get(*at..).is_some_and(|rest| rest.starts_with(b"_S5_"));
    (0..aml.len()).filter(found).find_map(|at| package(aml, at))
}

/// The package behind the name at `at`: `08 [5c] "_S5_" 12 length count values`.
fn package(aml: &[u8], at: usize) -> Option<(u16, u16)> {
    let before = aml.get(..at)?;
    if !before.ends_with(&[8]) && !before.ends_with(&[8, b'\\']) {
        return None;
    }
    let rest = aml.get(at + 4..)?;
    let (0x12, rest) = (*rest.first()?, rest.get(1..)?) else { return None };
    // The length's first byte says in its upper bits how many more there are.
    let mut rest = rest.get(1 + usize::from(rest.first()? >> 6)..)?;
    let count = take(&mut rest)?;
    if count < 2 {
        return None;
    }
    Some((value(&mut rest)?, value(&mut rest)?))
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

/// A small constant: Zero, One, or a byte, word or double word.
fn value(rest: &mut &[u8]) -> Option<u16> {
    let (low, more) = match take(rest)? {
        constant @ (0 | 1) => return Some(u16::from(constant)),
        0xa => (take(rest)?, 0),
        0xb => (take(rest)?, 1),
        0xc => (take(rest)?, 3),
        _ => return None,
    };
    for _ in 0..more {
        take(rest)?;
    }
    Some(u16::from(low & 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_firmware_uses_are_read() {
        // QEMU: Name (_S5, Package (4) {Zero, Zero, Zero, Zero}).
        assert_eq!(power_off(b"xx\x08_S5_\x12\x06\x04\0\0\0\0"), Some((0, 0)));
        assert_eq!(power_off(b"\x08\\_S5_\x12\x08\x04\x0a\x05\x0a\x07\0\0"), Some((5, 7)));
        assert_eq!(power_off(b"\x08_S5_\x12\x40\x08\x04\x0b\x05\0\x01\0\0"), Some((5, 1)));
        // A mention of the name is not its definition.
        let twice = b"_S5_\x08_S5_\x12\x06\x04\x01\0\0\0";
        assert_eq!(power_off(twice), Some((1, 0)));
    }

    #[test]
    fn anything_else_is_not() {
        let bad: [&[u8]; 6] = [
            b"",
            b"\x08_S5_",
            b"\x08_S5_\x11\x06\x04\0\0",
            b"\x08_S5_\x12",
            b"\x08_S5_\x12\x06\x01\0",
            b"\x08_S5_\x12\x06\x04\x55\0",
        ];
        for aml in bad {
            assert_eq!(power_off(aml), None);
        }
    }
}
