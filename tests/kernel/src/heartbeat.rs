//! A guest that keeps working: its memory must hold what it wrote, its time must go on.

use crate::println;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const WORDS: usize = (8 << 20) / 8;
static WORDS_OF_BEAT: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// Beats: fills 8 MiB with a sequence, reads it back, and says whether each word was kept.
pub fn run(beats: u64) {
    for beat in 0..beats {
        let mut state = beat.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let first = state;
        for word in black_box(&WORDS_OF_BEAT) {
            word.store(next(&mut state), Relaxed);
        }
        state = first;
        let wrong =
            WORDS_OF_BEAT.iter().filter(|word| word.load(Relaxed) != next(&mut state)).count();
        match wrong {
            0 => println!("beat {beat} good"),
            _ => println!("beat {beat} BAD: {wrong} words of {WORDS} changed"),
        }
    }
}

/// Marsaglia's xorshift64.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
