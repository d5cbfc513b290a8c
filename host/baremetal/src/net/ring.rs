//! Frames that wait, in memory that is taken once: whoever sends to a queue that is full loses the
//! frame, as on any wire, and takes no memory.

use super::MAX_FRAME;
use alloc::collections::VecDeque;

/// Bytes of all frames that wait, with a length before each: 129 of the largest.
const SIZE: usize = 192 << 10;
/// Bytes of a length.
const LENGTH: usize = 2;

/// A frame that was taken out.
pub type Taken = [u8; MAX_FRAME];

/// Frames, first in, first out.
pub struct Ring {
    /// Its capacity never changes.
    bytes: VecDeque<u8>,
}

impl Ring {
    /// An empty one; `None` where there is no memory.
    pub fn new() -> Option<Self> {
        let mut bytes = VecDeque::new();
        bytes.try_reserve_exact(SIZE).ok()?;
        Some(Self { bytes })
    }

    /// Whether there are no frames.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a frame. `false` where there is no room, or it is longer than any frame.
    pub fn push(&mut self, frame: &[u8]) -> bool {
        let room = frame.len() <= MAX_FRAME && SIZE - self.bytes.len() >= LENGTH + frame.len();
        if let Some(length) = u16::try_from(frame.len()).ok().filter(|_| room) {
            self.bytes.extend(length.to_le_bytes());
            self.bytes.extend(frame);
        }
        room
    }

    /// Takes the first frame out; gives its length.
    pub fn pop(&mut self, to: &mut Taken) -> Option<usize> {
        let length = [self.bytes.pop_front()?, self.bytes.pop_front()?];
        let length = usize::from(u16::from_le_bytes(length)).min(self.bytes.len()).min(to.len());
        let (first, second) = self.bytes.as_slices();
        let (first, rest) = (&first[..first.len().min(length)], length.saturating_sub(first.len()));
        to[..first.len()].copy_from_slice(first);
        to[first.len()..length].copy_from_slice(&second[..rest]);
        self.bytes.drain(..length);
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn frames_come_out_as_they_went_in_over_the_end_and_again() {
        let mut ring = Ring::new().unwrap();
        let (mut sent, mut seen, mut taken) = (0u32, 0u32, [0; MAX_FRAME]);
        let frame = |number: u32| -> Vec<u8> {
            let length = usize::try_from(number * 7919).unwrap() % (MAX_FRAME + 1);
            number.to_le_bytes().into_iter().cycle().take(length).collect()
        };
        while sent < 2000 {
            while ring.push(&frame(sent)) {
                sent += 1;
            }
            for _ in 0..50 {
                let length = ring.pop(&mut taken).unwrap();
                assert_eq!(taken[..length], frame(seen));
                seen += 1;
            }
        }
        while let Some(length) = ring.pop(&mut taken) {
            assert_eq!(taken[..length], frame(seen));
            seen += 1;
        }
        assert!(seen == sent && ring.is_empty());
    }

    #[test]
    fn it_never_takes_more_memory() {
        let mut ring = Ring::new().unwrap();
        let capacity = ring.bytes.capacity();
        let largest = [5; MAX_FRAME];
        let pushed = core::iter::repeat_with(|| ring.push(&largest)).take_while(|ok| *ok).count();
        assert_eq!(pushed, SIZE / (LENGTH + MAX_FRAME));
        while ring.push(&[]) {}
        assert!(ring.bytes.len() <= SIZE && ring.bytes.capacity() == capacity);
        assert!(!Ring::new().unwrap().push(&[0; MAX_FRAME + 1]));
    }
}
