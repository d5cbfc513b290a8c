//! A checked piece of guest RAM, as a pointer that only an operating system or a copy may follow.

#![allow(unsafe_code)]

use core::marker::PhantomData;

/// `len` bytes of guest RAM that [`super::GuestMemory::slice`] has checked.
///
/// The bytes may change under the holder at any time. That is why there is no way to make a Rust
/// reference of it; only copies, and [`GuestSlice::as_ptr`] for system calls.
#[derive(Clone, Copy, Debug)]
pub struct GuestSlice<'a> {
    ptr: *mut u8,
    len: usize,
    writable: bool,
    memory: PhantomData<&'a ()>,
}

impl<'a> GuestSlice<'a> {
    /// # Safety
    /// `ptr..ptr + len` must be mapped, readable, and writable where `writable` says so, for `'a`.
    pub(super) unsafe fn new(ptr: *mut u8, len: usize, writable: bool) -> Self {
        Self { ptr, len, writable, memory: PhantomData }
    }

    /// A slice over memory of the host, for tests and for hosts that copy on a guest's behalf.
    pub fn from_host(bytes: &'a mut [u8]) -> Self {
        Self { ptr: bytes.as_mut_ptr(), len: bytes.len(), writable: true, memory: PhantomData }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes are in the host's address space, to hand to a system call.
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// The part from `offset`, `len` bytes long, or `None` where that is outside of the slice.
    pub fn part(&self, offset: usize, len: usize) -> Option<GuestSlice<'a>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: the part lies inside of the slice, which is mapped for 'a.
        Some(unsafe { Self::new(self.ptr.add(offset), len, self.writable) })
    }

    /// Copies the first `to.len()` bytes out; as many as there are.
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let count = to.len().min(self.len);
        // SAFETY: both are valid for `count` bytes; `to` is host memory that the guest cannot
        // reach, so they do not overlap. The guest may write meanwhile: the bytes are then any
        // mix, which every caller has to check anyway.
        unsafe { copy_volatile(self.ptr, to.as_mut_ptr(), count) };
        count
    }

    /// Copies `from` in; as many bytes as fit, none where the slice is read-only.
    pub fn copy_from(&self, from: &[u8]) -> usize {
        let count = if self.writable { from.len().min(self.len) } else { 0 };
        // SAFETY: as in `copy_to`, and the slice was checked to be writable.
        unsafe { copy_volatile(from.as_ptr(), self.ptr, count) };
        count
    }
}

/// Eight bytes at any address, which are accessed at once where the processor can.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Word(u64);

/// Copies bytes with accesses that the compiler neither repeats nor leaves out: words, however they
/// lie, and then what is left. A guest chooses where buffers lie, and shall not choose what a copy
/// costs.
///
/// # Safety
/// `from` must be valid for reads and `to` for writes of `count` bytes; they must not overlap.
unsafe fn copy_volatile(from: *const u8, to: *mut u8, count: usize) {
    let words = count / size_of::<Word>();
    if from.cast::<u64>().is_aligned() && to.cast::<u64>().is_aligned() {
        for i in 0..words {
            // SAFETY: inside of both ranges, and aligned as checked above.
            unsafe {
                to.cast::<u64>().add(i).write_volatile(from.cast::<u64>().add(i).read_volatile());
            };
        }
    } else {
        for i in 0..words {
            // SAFETY: inside of both ranges; a packed structure needs no alignment.
            unsafe {
                to.cast::<Word>().add(i).write_volatile(from.cast::<Word>().add(i).read_volatile());
            };
        }
    }
    for i in words * size_of::<Word>()..count {
        // SAFETY: inside of both ranges.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
}

// SAFETY: a slice is only an address range; the memory is shared with the guest in any case, and
// every access is a volatile copy.
unsafe impl Send for GuestSlice<'_> {}
