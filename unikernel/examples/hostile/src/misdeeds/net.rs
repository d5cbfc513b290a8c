//! Against a network, by hypercalls: handles, lengths, buffers.

use super::{FOUR_GIB, end_of_memory, misdeeds, refused, text};
use crate::Outcome;
use unikernel::println;
use unikernel::raw::{self, NetIo, number};

misdeeds! {
    "net-bad-handle" => Refused, || HANDLES.iter().try_for_each(|&handle| bad_handle(handle));
    "net-empty" => EndedOrHarmless, || go(Way::Write, buffer(), 0);
    "net-runt" => EndedOrHarmless, || go(Way::Write, buffer(), 1);
    "net-oversize" => EndedOrHarmless, || go(Way::Write, buffer(), 100_000);
    "net-read-empty" => EndedOrHarmless, || go(Way::Read, buffer(), 0);
    "net-4g" => Ended, || go(Way::Write, buffer(), FOUR_GIB);
    "net-read-4g" => Ended, || go(Way::Read, buffer(), FOUR_GIB);
    "net-max" => Ended, || go(Way::Write, buffer(), u64::MAX);
    "net-buffer-beyond" => Ended, || go(Way::Write, end_of_memory() as u64 - 32, 64);
    "net-read-beyond" => Ended, || go(Way::Read, end_of_memory() as u64 - 32, 64);
    "net-buffer-wrap" => Ended, || go(Way::Write, u64::MAX - 31, 64);
    // More than anybody keeps for a guest that does not read.
    "net-flood" => Harmless, flood;
    // Without a frame to read, nothing is written either.
    "net-into-text" => FaultOrHarmless, || go(Way::Read, text() as u64 & !0xfff, 2048);
}

/// The reserved entry, the first that is not there, and those that only look like 1.
const HANDLES: [u64; 6] = [0, 2, 63, 64, FOUR_GIB + 1, u64::MAX];

#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
}

static mut BUFFER: [u8; 100_000] = [0; 100_000];

pub(super) fn buffer() -> u64 {
    (&raw mut BUFFER).expose_provenance() as u64
}

fn call(way: Way, io: &mut NetIo) {
    // SAFETY: the buffer is BUFFER, or the host must refuse it.
    unsafe {
        match way {
            Way::Read => raw::hypercall::<{ number::NET_READ }, _>(io),
            Way::Write => raw::hypercall::<{ number::NET_WRITE }, _>(io),
        }
    }
}

fn go(way: Way, data: u64, len: u64) -> Outcome {
    let mut io = NetIo { handle: 1, data, len, ret: 0 };
    call(way, &mut io);
    println!("answer {}, length {}", io.ret, io.len);
    Ok(())
}

/// Frames of the largest size, to everybody.
fn flood() -> Outcome {
    let to =
        core::ptr::with_exposed_provenance_mut::<[u8; 6]>(usize::try_from(buffer()).unwrap_or(0));
    // SAFETY: the buffer's first bytes.
    unsafe { to.write([0xff; 6]) };
    for _ in 0..1000 {
        call(Way::Write, &mut NetIo { handle: 1, data: buffer(), len: 1514, ret: 0 });
    }
    Ok(())
}

fn bad_handle(handle: u64) -> Outcome {
    for way in [Way::Write, Way::Read] {
        let mut io = NetIo { handle, data: buffer(), len: 64, ret: 0 };
        call(way, &mut io);
        refused(io.ret)?;
    }
    Ok(())
}
