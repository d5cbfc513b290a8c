//! How the program came to where it is: return addresses by the chain of frame pointers, with
//! names out of the table that `cargo xtask image` puts into the image.

use crate::log::{Level, line};
use crate::memory::space;
use core::ops::Range;
use host_baremetal::symbols::Symbols;

/// Callers that are printed at most.
const DEPTH: u32 = 32;

unsafe extern "C" {
    static text_start: u8;
    static rodata_start: u8;
    static symbols_start: u32;
}

/// The addresses of the table, and of its length in front of it.
pub fn table() -> Range<usize> {
    let start = &raw const symbols_start;
    // SAFETY: the word is there in every image, and constant once it runs.
    let length = unsafe { start.read_volatile() };
    start.addr()..start.addr() + usize::try_from(length).unwrap_or(4)
}

fn symbols() -> Symbols<'static> {
    let start = (&raw const symbols_start).cast::<u8>();
    // SAFETY: the loader has put as much there as the length says; it is mapped, and constant.
    let bytes = unsafe { core::slice::from_raw_parts(start, table().len()) };
    Symbols::new(bytes.get(4..).unwrap_or(&[]))
}

/// Prints the function at `rip` and its callers.
pub fn print(rip: u64, rbp: u64) {
    let symbols = symbols();
    let (mut at, mut frame) = (rip, rbp);
    for depth in 0..DEPTH {
        print_one(&symbols, depth, at);
        if !frame.is_multiple_of(8) || !space::is_mapped(frame) || !space::is_mapped(frame + 8) {
            return;
        }
        let pointer: *const u64 =
            core::ptr::with_exposed_provenance(usize::try_from(frame).unwrap_or(0));
        // SAFETY: mapped and aligned, as checked; a wrong frame gives a wrong line at worst.
        let (next, caller) = unsafe { (pointer.read(), pointer.add(1).read()) };
        if next <= frame || caller == 0 {
            return;
        }
        (at, frame) = (caller - 1, next);
    }
}

fn print_one(symbols: &Symbols<'_>, depth: u32, at: u64) {
    let start = (&raw const text_start).addr() as u64;
    let code = start..(&raw const rodata_start).addr() as u64;
    let offset = u32::try_from(at.wrapping_sub(start)).ok().filter(|_| code.contains(&at));
    match offset.and_then(|offset| symbols.find(offset)) {
        Some((name, inside)) => {
            let name = name.as_str();
            line(Level::Error, format_args!("{depth:3} {at:#x} {name}+{inside:#x}"));
        }
        None => line(Level::Error, format_args!("{depth:3} {at:#x}")),
    }
}
