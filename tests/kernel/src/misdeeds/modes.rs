//! Real, protected, compatibility and long mode, round and round.

use crate::println;
use crate::pvh::Boot;
use crate::traps;

unsafe extern "C" {
    static tour_start: u8;
    static tour_end: u8;
}

const AT: usize = 0x9000;
const ROUNDS: u32 = 200;

/// Goes through all modes and counts the real-mode interrupts that were served.
pub fn tour(_: &Boot) {
    let (start, end) = (&raw const tour_start, &raw const tour_end);
    // SAFETY: 0x9000 to 0xa000 is RAM that nobody uses; the copy is code with the C calling
    // convention.
    let served = unsafe {
        let to = core::ptr::with_exposed_provenance_mut::<u8>(AT);
        core::ptr::copy_nonoverlapping(start, to, end.addr() - start.addr());
        let tour: extern "C" fn(u32) -> u32 = core::mem::transmute(to);
        tour(ROUNDS)
    };
    traps::load();
    println!("{served} of {ROUNDS} rounds served");
}
