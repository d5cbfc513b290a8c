//! Sizes as people write them: "64M", "2G", "512K", plain bytes.

use core::fmt;

/// The suffixes, with the number of bits each stands for: K is 1,024, and so on.
const SUFFIXES: [(char, u32); 5] = [('B', 0), ('K', 10), ('M', 20), ('G', 30), ('T', 40)];

/// Why a text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It does not have the form of one.
    #[error("not a size: write a whole number with an optional K, M, G or T, such as \"64M\"")]
    Form,
    /// It does not fit in 64 bits.
    #[error("too large: sizes end at 16777215T")]
    TooLarge,
}

/// Reads a size: decimal digits, then at most one of `B`, `K`, `M`, `G`, `T` in either case, in
/// powers of 1,024. No sign, no blank, no fraction.
///
/// # Errors
/// [`SizeError`].
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let last = text.chars().last().ok_or(SizeError::Form)?;
    let suffix = SUFFIXES.iter().find(|(suffix, _)| *suffix == last.to_ascii_uppercase());
    let (digits, bits) = match suffix {
        Some((_, bits)) => (&text[..text.len() - 1], *bits),
        None => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SizeError::Form);
    }
    let number: u64 = digits.parse().map_err(|_| SizeError::TooLarge)?;
    number.checked_mul(1 << bits).ok_or(SizeError::TooLarge)
}

/// Shows a size as [`parse_size`] reads it, with the largest suffix that loses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(
    /// How many.
    pub u64,
);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |bits: &u32| self.0 != 0 && self.0.trailing_zeros() >= *bits;
        match SUFFIXES.iter().rev().find(|(_, bits)| *bits > 0 && whole(bits)) {
            Some((suffix, bits)) => write!(f, "{}{suffix}", self.0 >> bits),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn sizes_of_the_proposal() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        assert_eq!(parse_size("512k"), Ok(512 << 10));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
        assert_eq!(parse_size("512B"), Ok(512));
        assert_eq!(parse_size("512"), Ok(512));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "M", "-1M", "+1M", "1.5G", "64 M", " 64M", "64MB", "64MiB", "0x10", "６4"]
        {
            assert_eq!(parse_size(text), Err(SizeError::Form), "{text}");
        }
        for text in ["16777216T", "18446744073709551616", "99999999999999999999999K"] {
            assert_eq!(parse_size(text), Err(SizeError::TooLarge), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(bytes: u64, shift in 0u32..64) {
            let bytes = bytes << shift;
            prop_assert_eq!(parse_size(&Bytes(bytes).to_string()), Ok(bytes));
        }

        #[test]
        fn any_text_has_an_answer(text: std::string::String) {
            let _ = parse_size(&text);
        }
    }
}
