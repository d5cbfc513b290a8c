//! Against a block device: handles, offsets, lengths, buffers.

use super::{FOUR_GIB, end_of_memory, misdeeds, refused, text};
use crate::Outcome;
use unikernel::Block;
use unikernel::raw::{self, BlockIo, number};

misdeeds! {
    "block-bad-handle" => Refused, || HANDLES.iter().try_for_each(|&h| both(h, 0, buffer(), 512));
    "block-oob" => Refused, || both(1, capacity()?, buffer(), 512);
    "block-straddle" => Refused, || both(1, capacity()? - 512, buffer(), 1024);
    "block-wrap" => Refused, || both(1, u64::MAX - 511, buffer(), 512);
    "block-wrap-len" => Refused, || both(1, 512, buffer(), u64::MAX - 511);
    "block-4g" => Refused, || both(1, 0, buffer(), FOUR_GIB);
    // On a device that large the length is fine, and the buffer is not.
    "block-read-4g" => EndedOrHarmless, || go(Way::Read, 1, 0, buffer(), FOUR_GIB);
    "block-max" => Refused, || both(1, 0, buffer(), u64::MAX);
    "block-buffer-beyond" => Ended, || go(Way::Write, 1, 0, end_of_memory() as u64 - 256, 512);
    "block-read-beyond" => Ended, || go(Way::Read, 1, 0, end_of_memory() as u64 - 256, 512);
    "block-buffer-wrap" => Ended, || go(Way::Read, 1, 0, u64::MAX - 255, 512);
    "block-into-text" => Fault, || go(Way::Read, 1, 0, text() as u64 & !0xfff, 512);
    "block-from-text" => EndedOrHarmless, || go(Way::Write, 1, 0, text() as u64 & !0xfff, 512);
    "block-into-argument" => Harmless, into_argument;
}

/// The reserved entry, the first that is not there, and those that only look like 1.
const HANDLES: [u64; 6] = [0, 2, 63, 64, FOUR_GIB + 1, u64::MAX];

#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
}

static mut BUFFER: [u64; 512] = [0; 512];

fn buffer() -> u64 {
    (&raw mut BUFFER).expose_provenance() as u64
}

fn capacity() -> Result<u64, &'static str> {
    Ok(Block::acquire("storage").map_err(|_| "no device \"storage\"")?.capacity())
}

fn call(way: Way, io: &mut BlockIo) {
    // SAFETY: the buffer is BUFFER, or the host must refuse it.
    unsafe {
        match way {
            Way::Read => raw::hypercall::<{ number::BLOCK_READ }, _>(io),
            Way::Write => raw::hypercall::<{ number::BLOCK_WRITE }, _>(io),
        }
    }
}

fn go(way: Way, handle: u64, offset: u64, data: u64, len: u64) -> Outcome {
    call(way, &mut BlockIo { handle, offset, data, len, ret: 0 });
    Ok(())
}

/// Both ways are refused.
fn both(handle: u64, offset: u64, data: u64, len: u64) -> Outcome {
    for way in [Way::Write, Way::Read] {
        let mut io = BlockIo { handle, offset, data, len, ret: 0 };
        call(way, &mut io);
        refused(io.ret)?;
    }
    Ok(())
}

/// The data land on the argument itself: the answer must still be the host's.
fn into_argument() -> Outcome {
    let at = &raw mut BUFFER;
    // SAFETY: the one thread holds no reference to BUFFER.
    unsafe { at.write([0xeeee_eeee_eeee_eeee; 512]) };
    go(Way::Write, 1, 0, buffer(), 512)?;
    let io = at.cast::<BlockIo>();
    // SAFETY: BUFFER holds an argument and is aligned for it.
    let ret = unsafe {
        io.write(BlockIo { handle: 1, offset: 0, data: buffer(), len: 512, ret: 7 });
        raw::hypercall::<{ number::BLOCK_READ }, _>(io);
        io.read_volatile().ret
    };
    if ret == 0 { Ok(()) } else { Err("the answer is not OK") }
}
