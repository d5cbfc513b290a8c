//! Whose turn it is at what one thread at a time may use: first come, first served.
//!
//! Who ends its turn hands it to the one that has waited longest, and stands behind all others if it
//! asks again at once: a guest that never stops asking does not keep others out.
//!
//! Order: [`Turns::ask`] until it says yes, waiting in between to be woken; then [`Turns::end`],
//! and wake whom it names.

use alloc::collections::VecDeque;

/// The turns of threads that are called `T`.
pub struct Turns<T> {
    now: Option<T>,
    waiting: VecDeque<T>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { now: None, waiting: VecDeque::new() }
    }
}

impl<T: Copy + PartialEq> Turns<T> {
    /// Whether it is this one's turn; if not, it waits for it from now on. Where there is no memory
    /// to note that, it asks again without having waited.
    pub fn ask(&mut self, who: T) -> bool {
        let now = *self.now.get_or_insert(who);
        let new = now != who && !self.waiting.contains(&who);
        if new && self.waiting.try_reserve(1).is_ok() {
            self.waiting.push_back(who);
        }
        now == who
    }

    /// Whether anybody waits.
    pub fn is_wanted(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The turn is over: whose it is now.
    pub fn end(&mut self) -> Option<T> {
        self.now = self.waiting.pop_front();
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_again_at_once_stands_behind_the_others() {
        let mut turns = Turns::default();
        assert!(turns.ask(1) && !turns.is_wanted());
        assert!(!turns.ask(2) && !turns.ask(3) && !turns.ask(2));
        for next in [2, 3, 1, 2, 3] {
            let before = turns.now;
            assert_eq!(turns.end(), Some(next));
            assert!(!turns.ask(before.unwrap()), "it is {next}'s turn");
            assert!(turns.ask(next));
        }
    }

    #[test]
    fn a_turn_that_nobody_wants_is_free() {
        let mut turns = Turns::default();
        assert!(turns.ask(1));
        assert_eq!(turns.end(), None);
        assert!(turns.ask(2) && !turns.ask(1));
        assert_eq!((turns.end(), turns.is_wanted()), (Some(1), false));
    }
}
