//! DMA: one descriptor in the guest's memory says what to copy where.

use super::FwCfg;
use crate::memory::{Gpa, MemoryError};
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const ERROR: u32 = 1 << 0;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// Most bytes of one transfer: more than any item has.
const MAX: u32 = 1 << 20;
const ZEROS: usize = 4096;

/// `FWCfgDmaAccess`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Descriptor {
    control: U32,
    length: U32,
    address: U64,
}

/// Does what the descriptor at `at` says and tells the outcome in it. A descriptor that is not
/// memory is ignored: there is nowhere to tell.
pub fn run(device: &mut FwCfg, at: u64) {
    let memory = device.memory.clone();
    let Ok(descriptor) = memory.read_obj::<Descriptor>(Gpa(at)) else { return };
    let outcome = if transfer(device, descriptor).is_some() { 0 } else { ERROR };
    // It was readable memory just now; if it is not writable, the guest waits for ever.
    let _: Result<(), MemoryError> = memory.write_obj(Gpa(at), &U32::new(outcome));
}

fn transfer(device: &mut FwCfg, descriptor: Descriptor) -> Option<()> {
    let (control, length) = (descriptor.control.get(), descriptor.length.get());
    if control & SELECT != 0 {
        let [_, _, high, low] = (control >> 16).to_be_bytes();
        device.select(u16::from_be_bytes([high, low]));
    }
    if control & WRITE != 0 || length > MAX {
        return None;
    }
    let length = usize::try_from(length).ok()?;
    if control & READ != 0 {
        copy(device, descriptor.address.get(), length)?;
    } else if control & SKIP != 0 {
        device.take(length);
    }
    Some(())
}

/// The rest of the item, and zeros behind its end.
fn copy(device: &mut FwCfg, address: u64, length: usize) -> Option<()> {
    let memory = device.memory.clone();
    let part = device.take(length);
    memory.write_bytes(Gpa(address), &part).ok()?;
    let mut done = part.len();
    while done < length {
        let zeros = &[0; ZEROS][..ZEROS.min(length - done)];
        memory.write_bytes(Gpa(address.checked_add(done as u64)?), zeros).ok()?;
        done += zeros.len();
    }
    Some(())
}
