//! Memory and strings. Small copies are moves of overlapping words, large ones the CPU's own
//! string instruction, which recent CPUs do a cache line at a time.
//!
//! The compiler knows loops that copy, fill or measure, and makes them calls of the very functions
//! that are here. So no loop here may look like one: see `step`.

use core::arch::asm;
use core::ffi::{c_char, c_int, c_void};

/// From this size on, `rep movsb` is worth its start.
const LARGE: usize = 512;

type Wide = u128;

/// `at + by`, as something that the compiler cannot see through.
fn step(at: usize, by: usize) -> usize {
    let mut next = at.wrapping_add(by);
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(reg) next, options(pure, nomem, nostack, preserves_flags)) };
    next
}

unsafe fn load<T>(from: *const u8, at: usize) -> T {
    // SAFETY: the caller stays inside of the source.
    unsafe { from.add(at).cast::<T>().read_unaligned() }
}

unsafe fn store<T>(to: *mut u8, at: usize, value: T) {
    // SAFETY: the caller stays inside of the destination.
    unsafe { to.add(at).cast::<T>().write_unaligned(value) }
}

/// Copies up to 32 bytes. All is loaded before anything is stored, so they may overlap.
unsafe fn small(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: every access is inside of `len` bytes, which the caller vouches for.
    unsafe {
        match len {
            0 => {}
            1 => store(to, 0, load::<u8>(from, 0)),
            2..=3 => ends::<u16>(to, from, len),
            4..=7 => ends::<u32>(to, from, len),
            8..=15 => ends::<u64>(to, from, len),
            _ => ends::<Wide>(to, from, len),
        }
    }
}

/// Copies the first and the last `T` of `len` bytes, which together are all of them.
unsafe fn ends<T>(to: *mut u8, from: *const u8, len: usize) {
    let last = len - size_of::<T>();
    // SAFETY: as the caller of `small` vouches.
    unsafe {
        let (a, b) = (load::<T>(from, 0), load::<T>(from, last));
        store(to, 0, a);
        store(to, last, b);
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's two blocks have `len` bytes.
    unsafe {
        if len <= 32 {
            small(to, from, len);
        } else if len >= LARGE {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        } else {
            forward(to, from, len);
        }
    }
    to
}

/// Copies more than 16 bytes from front to back, wide words first, the last one overlapping.
unsafe fn forward(to: *mut u8, from: *const u8, len: usize) {
    let last = len - size_of::<Wide>();
    // SAFETY: `at` is below `last` where it is used, and `last` is the last place for a word.
    unsafe {
        let end = load::<Wide>(from, last);
        let mut at = 0;
        while at < last {
            store(to, at, load::<Wide>(from, at));
            at = step(at, size_of::<Wide>());
        }
        store(to, last, end);
    }
}

/// The same from back to front.
unsafe fn backward(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: as in `forward`.
    unsafe {
        let start = load::<Wide>(from, 0);
        let mut at = len;
        while at > size_of::<Wide>() {
            at = step(at, size_of::<Wide>().wrapping_neg());
            store(to, at, load::<Wide>(from, at));
        }
        store(to, 0, start);
    }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's two blocks have `len` bytes, and each way reads before it overwrites.
    unsafe {
        if len <= 32 {
            small(to, from, len);
        } else if to.addr().wrapping_sub(from.addr()) >= len {
            // The destination's start is not inside of the source.
            if from.addr().wrapping_sub(to.addr()) >= len {
                memcpy(to, from, len);
            } else {
                forward(to, from, len);
            }
        } else {
            backward(to, from, len);
        }
    }
    to
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memset(to: *mut u8, value: c_int, len: usize) -> *mut u8 {
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "memset(3)")]
    let byte = value as u8;
    // SAFETY: every access is inside of the caller's `len` bytes.
    unsafe {
        if len >= LARGE {
            asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte,
                options(nostack, preserves_flags));
            return to;
        }
        if len < 16 {
            let mut at = 0;
            while at < len {
                store(to, at, byte);
                at = step(at, 1);
            }
            return to;
        }
        let word = Wide::from_ne_bytes([byte; 16]);
        let last = len - 16;
        let mut at = 0;
        while at < last {
            store(to, at, word);
            at = step(at, 16);
        }
        store(to, last, word);
    }
    to
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    let mut at = 0;
    // SAFETY: every access is inside of the caller's `len` bytes.
    unsafe {
        while at + 8 <= len && load::<u64>(a, at) == load::<u64>(b, at) {
            at = step(at, 8);
        }
        while at < len {
            let (x, y) = (load::<u8>(a, at), load::<u8>(b, at));
            if x != y {
                return c_int::from(x) - c_int::from(y);
            }
            at = step(at, 1);
        }
    }
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> c_int {
    // SAFETY: the caller's.
    unsafe { memcmp(a, b, len) }
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let mut len = 0;
    // SAFETY: the caller's string ends with a zero byte.
    while unsafe { *text.add(len) } != 0 {
        len = step(len, 1);
    }
    len
}

/// A string's bytes without its end.
///
/// # Safety
/// `text` must be a string that lives long enough.
pub unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    // SAFETY: as the caller promises.
    unsafe { core::slice::from_raw_parts(text.cast(), strlen(text)) }
}

/// There is no dynamic linker: nothing is found.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn dlsym(_handle: *mut c_void, _name: *const c_char) -> *mut c_void {
    core::ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    #[test]
    fn copies_are_exact_for_every_length_and_offset() {
        let source = pattern(1200);
        for len in (0..70).chain([511, 512, 513, 1000]) {
            for offset in 0..17 {
                let mut target = vec![0xee; 1200];
                // SAFETY: both are inside of their vectors.
                unsafe { memcpy(target.as_mut_ptr().add(3), source.as_ptr().add(offset), len) };
                assert_eq!(target[3..3 + len], source[offset..offset + len]);
                assert!(target[..3].iter().chain(&target[3 + len..]).all(|&b| b == 0xee));
            }
        }
    }

    #[test]
    fn overlapping_moves_are_those_of_the_standard_library() {
        for len in (0..50).chain([64, 65, 127, 512, 700]) {
            for from in [0usize, 1, 7, 16, 33, 100, 600] {
                for to in [0usize, 1, 8, 15, 40, 101, 599] {
                    let (mut ours, mut theirs) = (pattern(1400), pattern(1400));
                    let at = ours.as_mut_ptr();
                    // SAFETY: both ranges are inside of the vector.
                    unsafe { memmove(at.add(to), at.add(from), len) };
                    theirs.copy_within(from..from + len, to);
                    assert_eq!(ours, theirs, "{len} bytes from {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn filling_stops_where_it_should() {
        for len in (0..70).chain([511, 512, 600]) {
            let mut block = vec![1u8; 700];
            // SAFETY: inside of the vector.
            unsafe { memset(block.as_mut_ptr().add(5), 0x1a5, len) };
            assert!(block[5..5 + len].iter().all(|&b| b == 0xa5));
            assert!(block[..5].iter().chain(&block[5 + len..]).all(|&b| b == 1));
        }
    }

    #[test]
    fn comparing_is_by_the_first_difference() {
        let a = pattern(100);
        for at in 0..100 {
            let mut b = a.clone();
            b[at] ^= 0x80;
            // SAFETY: both have 100 bytes.
            let (less, same) = unsafe {
                (memcmp(a.as_ptr(), b.as_ptr(), 100), memcmp(a.as_ptr(), b.as_ptr(), at))
            };
            assert_eq!(less.signum(), if a[at] < b[at] { -1 } else { 1 });
            assert_eq!(same, 0);
        }
        // SAFETY: a string of ours.
        assert_eq!(unsafe { bytes(c"four".as_ptr()) }, b"four");
    }
}
