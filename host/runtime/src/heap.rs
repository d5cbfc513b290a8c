//! `malloc` and its family.
//!
//! Blocks come in sizes that are powers of two, from the program's own zeroed memory first and
//! then from mappings; a freed block waits in its size's list. From `LARGEST` on, each is a
//! mapping of its own. In front of each block are 16 bytes that say where it starts and how large
//! it is.

use crate::mem::memcpy;
use crate::syscall::{raw, set_errno};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering};

/// Bytes in front of a block, and the least alignment.
const HEADER: usize = 16;
const SMALLEST: usize = 32;
/// Blocks of this size, header included, and larger ones are mapped.
const LARGEST: usize = 128 << 10;
const SIZES: usize = (LARGEST / SMALLEST).trailing_zeros() as usize;
/// What is there without a system call.
const FIRST: usize = 256 << 10;
/// What is mapped at once.
const CHUNK: usize = 1 << 20;

#[repr(C)]
struct Header {
    /// Where the whole block starts, and what it is a power of two of.
    origin: *mut u8,
    /// Its size from there on.
    size: usize,
}

#[repr(C, align(16))]
struct Arena([u8; FIRST]);

struct Heap {
    free: [*mut u8; SIZES],
    next: *mut u8,
    left: usize,
}

struct Locked {
    taken: AtomicBool,
    heap: UnsafeCell<Heap>,
    first: UnsafeCell<Arena>,
}

// SAFETY: the heap is used under its lock only.
unsafe impl Sync for Locked {}

static HEAP: Locked = Locked {
    taken: AtomicBool::new(false),
    heap: UnsafeCell::new(Heap { free: [null_mut(); SIZES], next: null_mut(), left: usize::MAX }),
    first: UnsafeCell::new(Arena([0; FIRST])),
};

fn with_heap<T>(f: impl FnOnce(&mut Heap) -> T) -> T {
    while HEAP.taken.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    // SAFETY: the lock is ours.
    let result = f(unsafe { &mut *HEAP.heap.get() });
    HEAP.taken.store(false, Ordering::Release);
    result
}

/// The list for a block of `size` bytes, header included, and the size of its blocks.
fn class(size: usize) -> (usize, usize) {
    let size = size.max(SMALLEST).next_power_of_two();
    (size.trailing_zeros() as usize - SMALLEST.trailing_zeros() as usize, size)
}

impl Heap {
    fn take(&mut self, size: usize) -> *mut u8 {
        let (list, size) = class(size);
        let Some(first) = self.free.get_mut(list) else { return map(size) };
        let block = *first;
        if block.is_null() {
            return self.fresh(size);
        }
        // SAFETY: a free block keeps the next one at its start.
        *first = unsafe { block.cast::<*mut u8>().read() };
        block
    }

    fn fresh(&mut self, size: usize) -> *mut u8 {
        if self.left == usize::MAX {
            (self.next, self.left) = (HEAP.first.get().cast(), FIRST);
        }
        if self.left < size {
            // What is left of the old chunk is less than a block of this size, and is not used.
            let chunk = map(CHUNK);
            if chunk.is_null() {
                return chunk;
            }
            (self.next, self.left) = (chunk, CHUNK);
        }
        let block = self.next;
        self.left -= size;
        self.next = block.wrapping_add(size);
        block
    }

    unsafe fn give(&mut self, block: *mut u8, size: usize) {
        let (list, _) = class(size);
        if let Some(first) = self.free.get_mut(list) {
            // SAFETY: the block is nobody's any more, and large enough for a pointer.
            unsafe { block.cast::<*mut u8>().write(*first) };
            *first = block;
        }
    }
}

fn map(size: usize) -> *mut u8 {
    let prot = (libc::PROT_READ | libc::PROT_WRITE).unsigned_abs() as usize;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unsigned_abs() as usize;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { raw(libc::SYS_mmap, [0, size, prot, flags, usize::MAX, 0]) };
    if (-4095..0).contains(&at) { null_mut() } else { at.cast_unsigned() as *mut u8 }
}

/// A block of at least `len` bytes, zeroed if it is `fresh`, whose address is a multiple of
/// `align`, a power of two.
fn allocate(len: usize, align: usize) -> *mut u8 {
    let padding = if align <= HEADER { 0 } else { align };
    let wanted = len.checked_add(HEADER + padding).filter(|&w| w <= isize::MAX.unsigned_abs() / 2);
    let Some(wanted) = wanted else { return null_mut() };
    let (_, size) = class(wanted);
    let (origin, size) = if size >= LARGEST {
        let size = wanted.next_multiple_of(4096);
        (map(size), size)
    } else {
        (with_heap(|heap| heap.take(size)), size)
    };
    if origin.is_null() {
        return origin;
    }
    let past = origin.wrapping_add(HEADER + padding);
    let block = if padding == 0 { past } else { past.wrapping_sub(past.addr() & (align - 1)) };
    // SAFETY: the header is between the origin and the block, which is aligned for it.
    unsafe { header(block).write(Header { origin, size }) };
    block
}

fn header(block: *mut u8) -> *mut Header {
    block.wrapping_sub(HEADER).cast()
}

/// How many bytes of a block its owner may use.
unsafe fn usable(block: *mut u8) -> usize {
    // SAFETY: the caller's block is one of ours.
    let Header { origin, size } = unsafe { header(block).read() };
    size - (block.addr() - origin.addr())
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn malloc(len: usize) -> *mut u8 {
    let block = allocate(len, HEADER);
    if block.is_null() {
        set_errno(libc::ENOMEM);
    }
    block
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn calloc(count: usize, len: usize) -> *mut u8 {
    let Some(len) = count.checked_mul(len) else {
        set_errno(libc::ENOMEM);
        return null_mut();
    };
    let block = malloc(len);
    if !block.is_null() {
        // SAFETY: the block has `len` bytes.
        unsafe { crate::mem::memset(block, 0, len) };
    }
    block
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn posix_memalign(to: *mut *mut c_void, align: usize, len: usize) -> c_int {
    if !align.is_power_of_two() {
        return libc::EINVAL;
    }
    let block = allocate(len, align);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's pointer.
    unsafe { to.write(block.cast()) };
    0
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn realloc(block: *mut u8, len: usize) -> *mut u8 {
    if block.is_null() {
        return malloc(len);
    }
    // SAFETY: the caller's block is one of ours.
    let has = unsafe { usable(block) };
    if len <= has {
        return block;
    }
    let larger = malloc(len);
    if !larger.is_null() {
        // SAFETY: the old block has `has` bytes, the new one more, and the caller gives it up.
        unsafe {
            memcpy(larger, block, has);
            free(block);
        }
    }
    larger
}

#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn free(block: *mut u8) {
    if block.is_null() {
        return;
    }
    // SAFETY: the caller's block is one of ours, and given up.
    unsafe {
        let Header { origin, size } = header(block).read();
        if size >= LARGEST {
            raw(libc::SYS_munmap, [origin.addr(), size, 0, 0, 0, 0]);
        } else {
            with_heap(|heap| heap.give(origin, size));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_apart_aligned_and_keep_their_bytes() {
        let mut blocks = Vec::new();
        for round in 0..600usize {
            let len = (round * 37) % 3000 + round % 5 * (60 << 10);
            let align = 16 << (round % 9);
            let mut at = null_mut();
            // SAFETY: a pointer of ours.
            assert_eq!(unsafe { posix_memalign(&raw mut at, align, len) }, 0);
            assert_eq!(at.addr() % align, 0);
            let byte = u8::try_from(round % 256).unwrap();
            // SAFETY: the block has `len` bytes.
            unsafe { at.cast::<u8>().write_bytes(byte, len) };
            blocks.push((at.cast::<u8>(), len, byte));
            if round % 3 == 0 {
                let (at, len, byte) = blocks.swap_remove(round % blocks.len());
                // SAFETY: a block of `len` bytes that is given up then.
                unsafe {
                    assert!((0..len).all(|i| *at.add(i) == byte));
                    free(at);
                }
            }
        }
        for (at, len, byte) in blocks {
            // SAFETY: as above.
            unsafe {
                assert!((0..len).all(|i| *at.add(i) == byte));
                free(at);
            }
        }
    }

    #[test]
    fn growing_keeps_what_was_there() {
        let mut at = malloc(1);
        let mut len = 1;
        // SAFETY: the block has `len` bytes, and is ours until it is freed.
        unsafe {
            *at = 7;
            while len < 1 << 20 {
                at = realloc(at, len * 3);
                assert_eq!(*at, 7);
                assert_eq!(*at.add(len / 2), if len < 2 { 7 } else { 9 });
                len *= 3;
                at.add(1).write_bytes(9, len - 1);
            }
            free(at);
        }
    }

    #[test]
    fn too_much_is_refused_and_zeroed_memory_is_zero() {
        assert!(allocate(usize::MAX - 8, 16).is_null());
        let dirty = malloc(100);
        // SAFETY: blocks of 100 bytes.
        unsafe {
            dirty.write_bytes(1, 100);
            free(dirty);
            let clean = calloc(10, 10);
            assert!((0..100).all(|i| *clean.add(i) == 0));
            free(clean);
        }
    }
}
