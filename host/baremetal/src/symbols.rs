//! Names of the image's own functions, for traces.
//!
//! The table is made by `cargo xtask image` from the linked image and put into it, small rather than
//! quick to read: `count` as little-endian `u32`; `count` times `u32`, ascending, where a function
//! begins, counted from the beginning of the code; `count` times `u16`, the number of its name; and
//! the names. These are sorted, each written as what it has not in common with the one before: the
//! number of bytes that it has, the number of bytes that follow, and these.

use arrayvec::ArrayVec;

/// Bytes of a name at most.
pub const LONGEST: usize = 255;

/// A table of names.
#[derive(Clone, Copy)]
pub struct Symbols<'a> {
    begins: &'a [u8],
    numbers: &'a [u8],
    names: &'a [u8],
}

/// A name, put together.
pub struct Name(ArrayVec<u8, LONGEST>);

impl Name {
    /// Its text, as far as it is one.
    pub fn as_str(&self) -> &str {
        match core::str::from_utf8(&self.0) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&self.0[..error.valid_up_to()]).unwrap_or(""),
        }
    }
}

impl<'a> Symbols<'a> {
    /// The table in these bytes; an empty one where they are too short for what they say.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::parse(bytes).unwrap_or(Self { begins: &[], numbers: &[], names: &[] })
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (begins, rest) = rest.split_at_checked(count.checked_mul(4)?)?;
        let (numbers, names) = rest.split_at_checked(count * 2)?;
        Some(Self { begins, numbers, names })
    }

    /// How many functions there are.
    pub fn len(&self) -> usize {
        self.begins.len() / 4
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.begins.is_empty()
    }

    /// The function that is at `offset` of the code, and how far into it that is.
    pub fn find(&self, offset: u32) -> Option<(Name, u32)> {
        let begins =
            self.begins.chunks_exact(4).map(|b| b.try_into().map_or(0, u32::from_le_bytes));
        let (index, begin) = begins.enumerate().take_while(|(_, begin)| *begin <= offset).last()?;
        let number = self.numbers.chunks_exact(2).nth(index)?.try_into().ok()?;
        Some((self.name(u16::from_le_bytes(number))?, offset - begin))
    }

    /// The name of this number.
    fn name(&self, number: u16) -> Option<Name> {
        let mut name = ArrayVec::new();
        let mut names = self.names;
        for _ in 0..=number {
            let ([common, length], rest) = names.split_first_chunk()?;
            let (more, rest) = rest.split_at_checked(usize::from(*length))?;
            name.truncate(usize::from(*common));
            name.try_extend_from_slice(more).ok()?;
            names = rest;
        }
        Some(Name(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn table(functions: &[(u32, u16)], names: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(functions.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend(functions.iter().flat_map(|(begin, _)| begin.to_le_bytes()));
        bytes.extend(functions.iter().flat_map(|(_, number)| number.to_le_bytes()));
        bytes.extend(names);
        bytes
    }

    #[test]
    fn the_last_function_that_begins_before_is_it() {
        let bytes = table(&[(0x10, 2), (0x40, 0), (0x60, 1)], b"\0\x03one\x01\x02ff\x00\x03six");
        let symbols = Symbols::new(&bytes);
        assert_eq!(symbols.len(), 3);
        let find = |offset| {
            let (name, inside) = symbols.find(offset)?;
            Some((std::string::String::from(name.as_str()), inside))
        };
        assert_eq!(find(0xf), None);
        assert_eq!(find(0x10), Some(("six".into(), 0)));
        assert_eq!(find(0x5f), Some(("one".into(), 0x1f)));
        assert_eq!(find(u32::MAX), Some(("off".into(), u32::MAX - 0x60)));
    }

    #[test]
    fn a_broken_table_names_nothing() {
        for bytes in [
            &b""[..],
            b"\x01\0\0",
            b"\xff\xff\xff\xff\0\0\0\0",
            b"\x02\0\0\0\0\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0\0\0\0\0",
        ] {
            assert!(Symbols::new(bytes).is_empty());
            assert!(Symbols::new(bytes).find(0).is_none());
        }
        for (number, names) in [(1, &b"\0\x01x"[..]), (0, b"\0\x02x"), (0, b"\0"), (0, b"")] {
            assert!(Symbols::new(&table(&[(0, number)], names)).find(0).is_none());
        }
        let long = [&[0, 200], &[b'a'; 200][..], &[200, 200], &[b'b'; 200]].concat();
        assert!(Symbols::new(&table(&[(0, 1)], &long)).find(0).is_none());
        let wild = table(&[(0, 0)], b"\xff\x03a\xffb");
        assert_eq!(Symbols::new(&wild).find(0).unwrap().0.as_str(), "a");
    }
}
