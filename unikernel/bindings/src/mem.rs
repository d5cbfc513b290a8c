//! The four memory functions that compiled Rust calls and that a C library has elsewhere.
//!
//! Copies and fills go through `rep movsb`/`rep stosb`: the compiler cannot turn those back into
//! calls of themselves, and CPUs since 2013 run them at full width. Short ones use plain words.

#![allow(unsafe_code)]

use core::arch::asm;

/// # Safety
///
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { if len <= 16 { copy_short(to, from, len) } else { copy_up(to, from, len) } }
    to
}

/// # Safety
///
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise; a copy upwards is right unless `to` lies inside `from`'s bytes.
    unsafe {
        if len <= 16 {
            copy_short(to, from, len);
        } else if to.addr().wrapping_sub(from.addr()) >= len {
            copy_up(to, from, len);
        } else {
            copy_down(to, from, len);
        }
    }
    to
}

/// # Safety
///
/// As C's.
#[unsafe(no_mangle)]
#[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "C takes the low byte")]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8,
             options(nostack, preserves_flags));
    }
    to
}

/// # Safety
///
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    let mut i = 0;
    // SAFETY: the caller's promise; `i` stays below `len`.
    unsafe {
        while i + 8 <= len && word(a.add(i)) == word(b.add(i)) {
            i += 8;
        }
        while i < len {
            let (x, y) = (*a.add(i), *b.add(i));
            if x != y {
                return i32::from(x) - i32::from(y);
            }
            i += 1;
        }
    }
    0
}

/// # Safety
///
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, len) }
}

/// # Safety
///
/// As C's.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: the caller's promise: a terminator follows.
    while unsafe { text.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}

unsafe fn word(at: *const u8) -> u64 {
    // SAFETY: the caller checked that eight bytes are there.
    unsafe { at.cast::<u64>().read_unaligned() }
}

/// At most 16 bytes; all are read before any is written, so they may overlap.
unsafe fn copy_short(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: both words lie inside `len` bytes.
    unsafe {
        if len >= 8 {
            let (head, tail) = (word(from), word(from.add(len - 8)));
            to.cast::<u64>().write_unaligned(head);
            to.add(len - 8).cast::<u64>().write_unaligned(tail);
        } else if len >= 4 {
            let head = from.cast::<u32>().read_unaligned();
            let tail = from.add(len - 4).cast::<u32>().read_unaligned();
            to.cast::<u32>().write_unaligned(head);
            to.add(len - 4).cast::<u32>().write_unaligned(tail);
        } else if len > 0 {
            let (first, middle, last) = (*from, *from.add(len / 2), *from.add(len - 1));
            *to = first;
            *to.add(len / 2) = middle;
            *to.add(len - 1) = last;
        }
    }
}

unsafe fn copy_up(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear as the ABI demands.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
             options(nostack, preserves_flags));
    }
}

/// From the end, in words, then the odd bytes at the start.
unsafe fn copy_down(to: *mut u8, from: *const u8, len: usize) {
    let mut left = len;
    // SAFETY: `left` bytes remain at the start of both; each word is read before it is written,
    // and writes touch only bytes that were read already.
    unsafe {
        while left >= 8 {
            left -= 8;
            let value = from.add(left).cast::<u64>().read_unaligned();
            to.add(left).cast::<u64>().write_unaligned(value);
        }
        copy_short(to, from, left);
    }
}
