//! The guest's side of the network ring: Solo5 v0.12.1 `include/hvt_ring.h`.
//!
//! One ring of submissions that we fill and one of commits that the host fills. A frame to send is
//! copied to a buffer of its slot and forgotten; a read waits for its commit. After a submission
//! the host is woken only if it asked for that: our tail is stored before its flag is read, and it
//! stores its flag before it reads our tail, so one of the two sees the other.

use crate::{Error, Result, raw};
use alloc::alloc::alloc;
use core::alloc::Layout;
use core::hint::spin_loop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering, fence};

/// Longest frame that goes through the ring in bytes.
pub(super) const FRAME_MAX: usize = 2048;

const SLOTS: u32 = 1024;
/// Submissions in flight at most, one buffer each: a power of two, less than the ring has.
const BUFFERS: u32 = 256;
const NET_WRITE: u32 = 1;
const NET_READ: u32 = 2;

#[repr(C)]
struct Submission {
    operation: u32,
    handle: u32,
    data: u64,
    len: u32,
    id: u32,
    reserved: u64,
}

#[repr(C)]
struct Commit {
    id: u32,
    ret: i32,
    len: u32,
    reserved: u32,
}

/// Indices count up without end; a slot is the index modulo 1,024.
#[repr(C)]
struct Indices {
    /// Written by us.
    submission_tail: AtomicU32,
    commit_head: AtomicU32,
    pad0: [u8; 56],
    /// Written by the host.
    submission_head: AtomicU32,
    commit_tail: AtomicU32,
    needs_kick: AtomicU32,
    pad1: [u8; 52],
}

/// The whole ring. References go to its indices only, never to slots that the host writes.
#[repr(C)]
struct Shared {
    indices: Indices,
    submissions: [Submission; SLOTS as usize],
    commits: [Commit; SLOTS as usize],
}

/// The one ring that all networks of a unikernel share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    shared: NonNull<Shared>,
    buffers: NonNull<u8>,
}

/// Buffers of the first user; every later one shares them, as all share the slots.
static BUFFER_MEMORY: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

impl Ring {
    /// The host's ring, if it offers one and there is memory for buffers.
    pub(super) fn of_host() -> Option<Self> {
        let info = raw::boot_info();
        if info.host_features & raw::FEATURE_RING_IO == 0 {
            return None;
        }
        let shared = NonNull::new(core::ptr::with_exposed_provenance_mut(info.net_ring))?;
        Some(Self { shared, buffers: buffers()? })
    }

    /// Sends a frame of at most [`FRAME_MAX`] bytes.
    pub(super) fn send(&mut self, handle: u32, frame: &[u8]) {
        let tail = self.reserve();
        let buffer = self.buffer(tail);
        // SAFETY: the slot's buffer has FRAME_MAX bytes, and the host is done with it: fewer than
        // BUFFERS submissions are in flight.
        unsafe { buffer.copy_from_nonoverlapping(NonNull::from(frame).cast(), frame.len()) };
        self.submit(tail, NET_WRITE, handle, buffer.as_ptr(), frame.len());
    }

    /// Receives a frame.
    pub(super) fn receive(&mut self, handle: u32, buffer: &mut [u8]) -> Result<usize> {
        let tail = self.reserve();
        self.submit(tail, NET_READ, handle, buffer.as_mut_ptr(), buffer.len());
        let (ret, len) = self.wait_for_commit();
        Error::check(ret)?;
        super::received(u64::from(len), buffer.len())
    }

    /// Waits until a slot is free; its index.
    fn reserve(&self) -> u32 {
        let shared = self.shared();
        let tail = shared.submission_tail.load(Ordering::Relaxed);
        while tail.wrapping_sub(shared.submission_head.load(Ordering::Acquire)) >= BUFFERS {
            spin_loop();
        }
        tail
    }

    #[allow(clippy::cast_possible_truncation, reason = "buffers are below 4 GiB, as all memory")]
    fn submit(&self, tail: u32, operation: u32, handle: u32, data: *mut u8, len: usize) {
        let data = data.expose_provenance() as u64;
        let entry = Submission { operation, handle, data, len: len as u32, id: tail, reserved: 0 };
        // SAFETY: the slot is inside the ring and not the host's before the tail moves.
        unsafe {
            let slots = (&raw mut (*self.shared.as_ptr()).submissions).cast::<Submission>();
            slots.add((tail % SLOTS) as usize).write_volatile(entry);
        }
        let shared = self.shared();
        shared.submission_tail.store(tail.wrapping_add(1), Ordering::Release);
        // mfence: see the top of the file.
        fence(Ordering::SeqCst);
        if shared.needs_kick.load(Ordering::Relaxed) != 0 {
            // SAFETY: the host offered the ring, the submission is complete.
            unsafe { raw::ring_kick() };
        }
    }

    /// The one commit that is due: reads are the only submissions with one, and we wait for each.
    fn wait_for_commit(&self) -> (i32, u32) {
        let shared = self.shared();
        let head = shared.commit_head.load(Ordering::Relaxed);
        while shared.commit_tail.load(Ordering::Acquire) == head {
            spin_loop();
        }
        // SAFETY: inside the ring; the host wrote it before it moved its tail.
        let commit = unsafe {
            let slots = (&raw const (*self.shared.as_ptr()).commits).cast::<Commit>();
            slots.add((head % SLOTS) as usize).read_volatile()
        };
        shared.commit_head.store(head.wrapping_add(1), Ordering::Release);
        (commit.ret, commit.len)
    }

    fn buffer(&self, index: u32) -> NonNull<u8> {
        // SAFETY: there are BUFFERS of them.
        unsafe { self.buffers.add((index % BUFFERS) as usize * FRAME_MAX) }
    }

    fn shared(&self) -> &Indices {
        // SAFETY: the host's ring is readable and writable; the prefix is atomics only.
        unsafe { self.shared.cast::<Indices>().as_ref() }
    }
}

/// Memory for the slots' buffers, taken from the heap once.
fn buffers() -> Option<NonNull<u8>> {
    let memory = BUFFER_MEMORY.load(Ordering::Relaxed);
    if memory.is_null() {
        let layout = Layout::new::<[[u8; FRAME_MAX]; BUFFERS as usize]>();
        // SAFETY: the layout is not empty.
        BUFFER_MEMORY.store(unsafe { alloc(layout) }, Ordering::Relaxed);
    }
    NonNull::new(BUFFER_MEMORY.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn layout_is_that_of_hvt_ring_h() {
        assert_eq!(offset_of!(Indices, submission_head), 64);
        assert_eq!(offset_of!(Indices, needs_kick), 72);
        assert_eq!(offset_of!(Shared, submissions), 128);
        assert_eq!(offset_of!(Shared, commits), 128 + 1024 * 32);
        assert_eq!(size_of::<Shared>(), 128 + 1024 * 48);
    }
}
