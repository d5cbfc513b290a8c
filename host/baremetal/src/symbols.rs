//! Names of the image's own functions, for traces.
//!
//! The table is made by `cargo xtask image` from the linked image and put into it: `count` as
//! little-endian `u32`, then `count` pairs of `u32`, ascending: where a function begins, counted
//! from the beginning of the code, and where its name begins, counted from the end of the pairs.
//! A name ends with a zero byte.

/// A table of names.
#[derive(Clone, Copy)]
pub struct Symbols<'a> {
    pairs: &'a [u8],
    names: &'a [u8],
}

impl<'a> Symbols<'a> {
    /// The table in these bytes; an empty one where they are too short for what they say.
    pub fn new(bytes: &'a [u8]) -> Self {
        let none = Self { pairs: &[], names: &[] };
        let Some((count, rest)) = bytes.split_first_chunk() else { return none };
        let count = usize::try_from(u32::from_le_bytes(*count)).unwrap_or(usize::MAX);
        let parts = count.checked_mul(8).and_then(|length| rest.split_at_checked(length));
        parts.map_or(none, |(pairs, names)| Self { pairs, names })
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.pairs.len() / 8
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    fn pair(&self, index: usize) -> Option<(u32, u32)> {
        let (begin, name) = self.pairs.get(8 * index..8 * index + 8)?.split_first_chunk()?;
        Some((u32::from_le_bytes(*begin), u32::from_le_bytes(*name.first_chunk()?)))
    }

    /// The function that is at `offset` of the code, and how far into it that is.
    pub fn find(&self, offset: u32) -> Option<(&'a str, u32)> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.pair(middle)?.0 <= offset {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        let (begin, name) = self.pair(low.checked_sub(1)?)?;
        let name = self.names.get(usize::try_from(name).ok()?..)?;
        let end = name.iter().position(|byte| *byte == 0)?;
        Some((core::str::from_utf8(&name[..end]).ok()?, offset - begin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn table(pairs: &[(u32, u32)], names: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(pairs.len()).unwrap().to_le_bytes().to_vec();
        for (begin, name) in pairs {
            bytes.extend(begin.to_le_bytes());
            bytes.extend(name.to_le_bytes());
        }
        bytes.extend(names);
        bytes
    }

    #[test]
    fn the_last_function_that_begins_before_is_it() {
        let bytes = table(&[(0x10, 0), (0x40, 4), (0x60, 8)], b"one\0two\0six\0");
        let symbols = Symbols::new(&bytes);
        assert_eq!(symbols.len(), 3);
        assert_eq!(symbols.find(0xf), None);
        assert_eq!(symbols.find(0x10), Some(("one", 0)));
        assert_eq!(symbols.find(0x5f), Some(("two", 0x1f)));
        assert_eq!(symbols.find(u32::MAX), Some(("six", u32::MAX - 0x60)));
    }

    #[test]
    fn a_broken_table_names_nothing() {
        for bytes in
            [&b""[..], b"\x01\0\0", b"\xff\xff\xff\xff\0\0\0\0", b"\x02\0\0\0\0\0\0\0\0\0\0\0"]
        {
            assert!(Symbols::new(bytes).is_empty());
            assert_eq!(Symbols::new(bytes).find(0), None);
        }
        let bytes = table(&[(0, 100)], b"x\0");
        assert_eq!(Symbols::new(&bytes).find(0), None);
        let bytes = table(&[(0, 0)], b"without end");
        assert_eq!(Symbols::new(&bytes).find(0), None);
    }
}
