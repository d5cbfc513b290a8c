//! Against the network ring: indices, descriptors, and both while the host looks at them.
//!
//! The layout is that of Solo5 v0.12.1 `include/hvt_ring.h`, written out as offsets: nothing here
//! may be kept from breaking it by a type.

use super::{end_of_memory, misdeeds, net::buffer, text};
use crate::{Outcome, skip_without_ring};
use core::ptr::with_exposed_provenance_mut;
use core::time::Duration;
use unikernel::{clock, raw};

misdeeds! {
    "ring-back" => Ended, || tail_by(u32::MAX);
    "ring-ahead" => Ended, || tail_by(100_000);
    "ring-one-too-many" => Ended, || tail_by(SLOTS + 1);
    "ring-full" => Harmless, || tail_by(SLOTS);
    "ring-host-indices" => EndedOrHarmless, host_indices;
    "ring-commit-head" => EndedOrHarmless, commit_head;
    "ring-bad-op" => Harmless, || submit(Entry { operation: 77, ..frame() });
    "ring-bad-handle" => EndedOrHarmless, || submit(Entry { handle: 63, ..frame() });
    "ring-bad-pointer" => Ended, || submit(Entry { data: u64::MAX - 10, ..frame() });
    "ring-beyond" => Ended, || submit(Entry { data: end_of_memory() as u64 - 8, ..frame() });
    "ring-over-ring" => Ended, over_ring;
    "ring-4g" => Ended, || submit(Entry { len: u32::MAX, ..frame() });
    "ring-read-4g" => Ended, || submit(Entry { operation: READ, len: u32::MAX, ..frame() });
    "ring-empty" => EndedOrHarmless, || submit(Entry { len: 0, ..frame() });
    "ring-into-text" => FaultOrHarmless, || submit(Entry { operation: READ, data: text() as u64, ..frame() });
    "ring-flip" => EndedOrHarmless, flip;
    "ring-kicks" => Harmless, kicks;
    "ring-kick-other" => EndedOrHarmless, kick_other;
}

const SLOTS: u32 = 1024;
const WRITE: u32 = 1;
const READ: u32 = 2;
const TAIL: usize = 0;
const COMMIT_HEAD: usize = 4;
const HEAD: usize = 64;
const COMMIT_TAIL: usize = 68;
const NEEDS_KICK: usize = 72;
const ENTRIES: usize = 128;

#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    operation: u32,
    handle: u32,
    data: u64,
    len: u32,
    id: u32,
    reserved: u64,
}

/// A frame that is fine to send.
fn frame() -> Entry {
    Entry { operation: WRITE, handle: 1, data: buffer(), len: 64, id: 0, reserved: 0 }
}

/// Address of the ring; ends the unikernel where there is none.
fn ring() -> usize {
    let info = raw::boot_info();
    if info.host_features & raw::FEATURE_RING_IO == 0 || info.net_ring == 0 {
        skip_without_ring();
    }
    info.net_ring
}

fn store<T>(offset: usize, value: T) {
    // SAFETY: inside the ring, which the host lends us to write.
    unsafe { with_exposed_provenance_mut::<T>(ring() + offset).write_volatile(value) };
}

fn load(offset: usize) -> u32 {
    // SAFETY: inside the ring.
    unsafe { with_exposed_provenance_mut::<u32>(ring() + offset).read_volatile() }
}

fn kick() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    // SAFETY: only wakes the host.
    unsafe { raw::ring_kick() };
}

/// Time for a thread of the host to look; hypercalls in between notice a guest that was ended.
fn let_host_look() {
    let until = clock::monotonic() + Duration::from_millis(500);
    while clock::monotonic() < until {
        clock::wall();
    }
}

/// Moves the tail; all slots hold frames that are fine.
fn tail_by(distance: u32) -> Outcome {
    for slot in 0..SLOTS as usize {
        store(ENTRIES + slot * size_of::<Entry>(), Entry { operation: 77, ..frame() });
    }
    store(TAIL, load(HEAD).wrapping_add(distance));
    kick();
    let_host_look();
    Ok(())
}

fn submit(entry: Entry) -> Outcome {
    let tail = load(TAIL);
    store(ENTRIES + (tail % SLOTS) as usize * size_of::<Entry>(), entry);
    store(TAIL, tail.wrapping_add(1));
    kick();
    let_host_look();
    Ok(())
}

/// The host's own words in shared memory say what they should not.
fn host_indices() -> Outcome {
    for value in [u32::MAX, 12_345, 1 << 31, 0] {
        store(HEAD, value);
        store(COMMIT_TAIL, value);
        store(NEEDS_KICK, value);
        submit(frame())?;
    }
    Ok(())
}

fn commit_head() -> Outcome {
    store(COMMIT_HEAD, 0x8000_0000_u32);
    submit(Entry { operation: READ, ..frame() })
}

/// The frame is read into the ring itself.
fn over_ring() -> Outcome {
    submit(Entry { operation: READ, data: ring() as u64, len: 2048, ..frame() })
}

/// A descriptor that is good and bad in turn while the host looks.
fn flip() -> Outcome {
    let tail = load(TAIL);
    let slot = ENTRIES + (tail % SLOTS) as usize * size_of::<Entry>();
    store(slot, frame());
    for round in 0..2000u32 {
        store(TAIL, tail.wrapping_add(1));
        kick();
        for _ in 0..100 {
            store(slot, Entry { data: u64::MAX - 10, len: u32::MAX, ..frame() });
            store(slot, frame());
        }
        store(TAIL, tail.wrapping_add(round % 2));
    }
    let_host_look();
    Ok(())
}

/// Doorbells with nothing to do.
fn kicks() -> Outcome {
    ring();
    (0..10_000).for_each(|_| kick());
    Ok(())
}

/// A ring that is not there.
fn kick_other() -> Outcome {
    ring();
    // SAFETY: no ring has this number.
    unsafe { core::arch::asm!("out dx, eax", in("edx") raw::RING_KICK_PIO, in("eax") 5) };
    let_host_look();
    Ok(())
}
