//! The nearest valid name, for messages that say "did you mean …?".

use alloc::vec::Vec;

/// Words longer than this are compared with nothing: no name here is as long, and the work of a
/// comparison grows with the product of both lengths.
const LONGEST: usize = 64;

/// The candidate that `word` is most likely a slip of, or `None` if none is near. Case does not
/// count. Of equally near candidates the first wins.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let near = |candidate: &'a str| {
        let edits = distance(word, candidate);
        (edits <= allowed(candidate)).then_some((edits, candidate))
    };
    let best = candidates.into_iter().filter_map(near).min_by_key(|(edits, _)| *edits)?;
    Some(best.1)
}

/// How many edits still look like a slip: one in three letters, and at least one.
fn allowed(candidate: &str) -> usize {
    (candidate.chars().count() / 3).max(1)
}

/// Optimal string alignment distance: insertions, deletions, substitutions and swaps of
/// neighbours, each one edit.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, ca) in a.chars().map(|c| c.to_ascii_lowercase()).enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substitution = above[j] + usize::from(ca != *cb);
            let mut edits = substitution.min(above[j + 1] + 1).min(row[j] + 1);
            if j > 0 && previous == Some(*cb) && ca == b[j - 1] {
                let swapped: &Vec<usize> = &before;
                edits = edits.min(swapped[j - 1] + 1);
            }
            row.push(edits);
        }
        before = core::mem::replace(&mut above, row);
        previous = Some(ca);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let keys = ["name", "mode", "vcpus", "memory", "hvt"];
        assert_eq!(nearest("memroy", keys), Some("memory"));
        assert_eq!(nearest("Memory", keys), Some("memory"));
        assert_eq!(nearest("vcpu", keys), Some("vcpus"));
        assert_eq!(nearest("hvm", keys), Some("hvt"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(nearest(&"m".repeat(1 << 20), keys), None);
    }

    #[test]
    fn a_swap_is_one_edit() {
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("memroy", "memory"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    proptest! {
        #[test]
        fn distance_is_symmetric_and_bounded(a in "[a-d]{0,8}", b in "[a-d]{0,8}") {
            let d = distance(&a, &b);
            prop_assert_eq!(d, distance(&b, &a));
            prop_assert_eq!(d == 0, a == b);
            prop_assert!(d <= a.len().max(b.len()));
            prop_assert!(d >= a.len().abs_diff(b.len()));
        }
    }
}
