//! A set of interrupt vectors, as IRR, ISR and TMR hold one.

/// A set of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vectors(pub [u64; 4]);

fn place(vector: u8) -> (usize, u64) {
    (usize::from(vector >> 6), 1 << (vector & 63))
}

impl Vectors {
    /// Puts a vector in, or takes it out.
    pub fn set(&mut self, vector: u8, member: bool) {
        let (word, bit) = place(vector);
        if member {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    /// Whether a vector is in it.
    pub fn has(&self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        self.0[word] & bit != 0
    }

    /// Whether it has no vector.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The highest vector, which has the highest priority.
    pub fn highest(&self) -> Option<u8> {
        for word in (0..4u8).rev() {
            let bits = self.0[usize::from(word)];
            if bits != 0 {
                let bit = 63 - (bits.leading_zeros() & 63);
                return Some(word * 64 + u8::try_from(bit).unwrap_or(63));
            }
        }
        None
    }

    /// Register `index` of 8: 32 vectors.
    pub fn register(&self, index: u8) -> u32 {
        let word = self.0[usize::from(index / 2) & 3];
        let half = if index & 1 == 0 { word } else { word >> 32 };
        u32::try_from(half & 0xffff_ffff).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<u8>(), any::<bool>()), 0..60)) {
            let (mut vectors, mut model) = (Vectors::default(), BTreeSet::new());
            for (vector, member) in steps {
                vectors.set(vector, member);
                if member { model.insert(vector); } else { model.remove(&vector); }
                prop_assert_eq!(vectors.highest(), model.last().copied());
                prop_assert_eq!(vectors.is_empty(), model.is_empty());
                prop_assert_eq!(vectors.has(vector), member);
                let register = vectors.register(vector / 32);
                prop_assert_eq!(register >> (vector & 31) & 1 == 1, member);
            }
        }
    }
}
