//! A hostile guest's network ring: served in bounded work, or it ends the guest.

#![no_main]

use arbitrary::Arbitrary;
use fuzz::host::resources;
use fuzz::ram::Ram;
use fuzz::values::Word;
use hypervisor::memory::{Gpa, Perms};
use hypervisor::modes::hvt::ring::{Ring, RingError};
use hypervisor::modes::hvt::solo5_abi::ring::{self as abi, Entry};
use libfuzzer_sys::fuzz_target;
use std::sync::atomic::Ordering::Relaxed;

const START: u64 = 0x10_0000;
const END: u64 = START + 0x1_0000;
const CLOSED: std::ops::Range<u64> = START + 0x1000..START + 0x2000;

#[derive(Debug, Arbitrary)]
enum Action {
    /// Writes a submission.
    Submit {
        slot: u16,
        operation: u8,
        handle: u8,
        data: Word,
        len: Word,
        id: u32,
    },
    /// Moves the guest's tail.
    Advance(i16),
    /// Sets it to anything.
    Tail(u32),
    /// Overwrites anything, the host's indices too.
    Scribble(Word, u32),
    Process,
}

#[derive(Debug, Arbitrary)]
struct Input {
    /// Where the ring is: in its place, or partly outside of the memory.
    misplaced: Option<Word>,
    actions: Vec<Action>,
}

fuzz_target!(|input: Input| {
    let mut ram = Ram::new(START..END);
    ram.close(CLOSED, 0xc3, Perms::empty());
    let base = input.misplaced.map_or(END - abi::BYTES, |word| word.get(START, END));
    let (ring, host) = (Ring::new(Gpa(base)), resources());
    let mut head = 0;
    for action in input.actions.iter().take(32) {
        match step(action, base, head, &ram, &ring, &host) {
            Ok(Some(new)) => head = new,
            Ok(None) => {}
            Err(_) => break,
        }
    }
    assert!(ram.is_filled(CLOSED, 0xc3));
});

/// Carries out an action; gives the head after the ring was processed.
fn step(
    action: &Action,
    base: u64,
    head: u32,
    ram: &Ram,
    ring: &Ring,
    host: &hypervisor::modes::hvt::service::Resources,
) -> Result<Option<u32>, RingError> {
    let tail_at = Gpa(base.wrapping_add(abi::ENT_TAIL));
    let word = |word: Word| word.get(START, END);
    match *action {
        Action::Submit { slot, operation, handle, data, len, id } => {
            let entry = Entry {
                operation: (operation % 4).into(),
                handle: (handle % 4).into(),
                data: Gpa(word(data)),
                len: word(len) as u32,
                id,
                reserved: 0,
            };
            let offset = abi::ENTRIES + u64::from(u32::from(slot) % abi::SIZE) * 32;
            let _ = ram.memory.write_obj(Gpa(base.wrapping_add(offset)), &entry);
        }
        Action::Advance(by) => {
            let _ = ram.memory.store_u32(tail_at, head.wrapping_add_signed(by.into()), Relaxed);
        }
        Action::Tail(tail) => {
            let _ = ram.memory.store_u32(tail_at, tail, Relaxed);
        }
        Action::Scribble(at, value) => {
            let _ = ram.memory.write_obj(Gpa(word(at)), &value);
        }
        Action::Process => return process(tail_at, head, ram, ring, host).map(Some),
    }
    Ok(None)
}

fn process(
    tail_at: Gpa,
    head: u32,
    ram: &Ram,
    ring: &Ring,
    host: &hypervisor::modes::hvt::service::Resources,
) -> Result<u32, RingError> {
    let tail = ram.memory.load_u32(tail_at, Relaxed);
    let served = ring.process(&ram.memory, host, None);
    match (served, tail) {
        (Ok(any), Ok(tail)) => {
            assert!(tail.wrapping_sub(head) <= abi::SIZE && any == (tail != head));
            Ok(tail)
        }
        (Err(error @ RingError::Tail { .. }), Ok(tail)) => {
            assert!(tail.wrapping_sub(head) > abi::SIZE);
            Err(error)
        }
        (Err(error), _) => Err(error),
        (Ok(_), Err(error)) => panic!("a ring without memory was served: {error}"),
    }
}
