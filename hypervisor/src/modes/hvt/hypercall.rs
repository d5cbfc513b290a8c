//! The meaning of each hypercall, once (Solo5 v0.12.1 `include/hvt_abi.h` and `include/solo5.h`).
//!
//! An argument structure is copied once and checked; only its output fields are written back.
//! What the ABI can report goes to the guest as a [`result`]; a pointer that is not the guest's
//! to use ends it, as it does upstream.

use super::reach::Reach;
use super::service::Resources;
use super::solo5_abi::{self as abi, Hypercall, result};
use crate::host::HostError;
use crate::memory::{Gpa, GuestSlice, MemoryError, Perms};
use core::mem::offset_of;
use zerocopy::{FromBytes, IntoBytes};

/// A hypercall that the guest comes back from, or its last one.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// It goes on; `bytes` of data were moved.
    Resume {
        /// Bytes of data, for the counters.
        bytes: u64,
    },
    /// It has ended itself.
    Halt {
        /// Its exit status.
        status: i32,
        /// Its hint to a trap frame, readable for [`abi::HALT_COOKIE_MAX`] bytes.
        cookie: Option<Gpa>,
    },
}

/// Why a hypercall ends its guest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HypercallError {
    /// The argument structure, or a buffer that it names, is not the guest's to use.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The host failed where the ABI has no way to say so.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Bytes of an Ethernet header with a VLAN tag: what a frame may have beyond the MTU.
const ETHERNET_OVERHEAD: u64 = 18;

/// Answers `call` with its argument structure at `argument`.
///
/// # Errors
/// [`HypercallError`] ends the guest.
pub fn answer(
    call: Hypercall,
    argument: Gpa,
    memory: Reach<'_>,
    host: &Resources,
) -> Result<Done, HypercallError> {
    let args = Args { memory, at: argument };
    match call {
        Hypercall::Walltime => walltime(&args, host),
        Hypercall::Puts => puts(&args, host),
        Hypercall::Poll => poll(&args, host),
        Hypercall::BlockWrite => block(&args, host, Direction::Write),
        Hypercall::BlockRead => block(&args, host, Direction::Read),
        Hypercall::NetWrite => net_write(&args, host),
        Hypercall::NetRead => net_read(&args, host),
        Hypercall::Halt => halt(&args),
    }
}

/// An argument structure in guest memory.
struct Args<'a> {
    memory: Reach<'a>,
    at: Gpa,
}

impl<'a> Args<'a> {
    /// Copies the structure, which must be writable too: it has output fields.
    fn in_out<T: FromBytes + IntoBytes>(&self) -> Result<T, MemoryError> {
        self.memory.read_in_out(self.at)
    }

    fn set<T: IntoBytes + zerocopy::Immutable>(
        &self,
        offset: usize,
        value: T,
    ) -> Result<(), MemoryError> {
        // `in_out` has checked the whole structure, so the sum does not wrap around.
        self.memory.write_obj(Gpa(self.at.0.wrapping_add(offset as u64)), &value)
    }

    fn buffer(&self, data: Gpa, len: u64, needs: Perms) -> Result<GuestSlice<'a>, MemoryError> {
        self.memory.slice(data, len, needs)
    }
}

const fn moved(bytes: u64) -> Result<Done, HypercallError> {
    Ok(Done::Resume { bytes })
}

fn walltime(args: &Args<'_>, host: &Resources) -> Result<Done, HypercallError> {
    args.set(0, host.clock.wall_ns())?;
    moved(0)
}

fn puts(args: &Args<'_>, host: &Resources) -> Result<Done, HypercallError> {
    let puts: abi::Puts = args.memory.read_obj(args.at)?;
    host.console.write(args.buffer(puts.data, puts.len, Perms::READ)?)?;
    moved(puts.len)
}

fn poll(args: &Args<'_>, host: &Resources) -> Result<Done, HypercallError> {
    let poll: abi::Poll = args.in_out()?;
    let ready = host.wait.wait(poll.timeout_nsecs)?;
    args.set(offset_of!(abi::Poll, ready_set), ready)?;
    args.set(offset_of!(abi::Poll, ret), ready.count_ones())?;
    moved(0)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

fn block(args: &Args<'_>, host: &Resources, direction: Direction) -> Result<Done, HypercallError> {
    let io: abi::BlockIo = args.in_out()?;
    let ret = |value: i32| args.set(offset_of!(abi::BlockIo, ret), value);
    let store = host.block(io.handle).filter(|store| {
        let end = io.offset.checked_add(io.len);
        io.offset < store.capacity() && end.is_some_and(|end| end <= store.capacity())
    });
    let Some(store) = store else {
        ret(result::EINVAL)?;
        return moved(0);
    };
    let outcome = match direction {
        Direction::Read => store.read_at(io.offset, args.buffer(io.data, io.len, Perms::WRITE)?),
        Direction::Write => store.write_at(io.offset, args.buffer(io.data, io.len, Perms::READ)?),
    };
    match outcome {
        Ok(()) => ret(result::OK)?,
        Err(_) => ret(result::EUNSPEC)?,
    }
    moved(if outcome.is_ok() { io.len } else { 0 })
}

fn net_write(args: &Args<'_>, host: &Resources) -> Result<Done, HypercallError> {
    let io: abi::NetIo = args.in_out()?;
    let ret = send(host, io.handle, io.data, io.len, args.memory)?;
    args.set(offset_of!(abi::NetIo, ret), ret)?;
    moved(if ret == result::OK { io.len } else { 0 })
}

fn net_read(args: &Args<'_>, host: &Resources) -> Result<Done, HypercallError> {
    let io: abi::NetIo = args.in_out()?;
    let (ret, len) = receive(host, io.handle, io.data, io.len, args.memory)?;
    if ret == result::OK {
        args.set(offset_of!(abi::NetIo, len), len)?;
    }
    args.set(offset_of!(abi::NetIo, ret), ret)?;
    moved(len)
}

/// Sends `len` bytes at `data` as one frame; the result is for the guest.
pub(super) fn send(
    host: &Resources,
    handle: u64,
    data: Gpa,
    len: u64,
    memory: Reach<'_>,
) -> Result<i32, MemoryError> {
    let Some(port) = host.net(handle) else { return Ok(result::EINVAL) };
    let frame = memory.slice(data, len, Perms::READ)?;
    if len > u64::from(port.mtu()) + ETHERNET_OVERHEAD {
        return Ok(result::EINVAL);
    }
    Ok(if port.send(frame).is_ok() { result::OK } else { result::EUNSPEC })
}

/// Receives one frame into `len` bytes at `data`; gives the result for the guest, and the length.
pub(super) fn receive(
    host: &Resources,
    handle: u64,
    data: Gpa,
    len: u64,
    memory: Reach<'_>,
) -> Result<(i32, u64), MemoryError> {
    let Some(port) = host.net(handle) else { return Ok((result::EINVAL, 0)) };
    Ok(match port.receive(memory.slice(data, len, Perms::WRITE)?) {
        Ok(Some(len)) => (result::OK, len as u64),
        Ok(None) => (result::AGAIN, 0),
        Err(_) => (result::EUNSPEC, 0),
    })
}

fn halt(args: &Args<'_>) -> Result<Done, HypercallError> {
    let halt: abi::Halt = args.memory.read_obj(args.at)?;
    let cookie = (!halt.cookie.is_null()).then_some(halt.cookie);
    if let Some(at) = cookie {
        args.buffer(at, abi::HALT_COOKIE_MAX, Perms::READ)?;
    }
    Ok(Done::Halt { status: halt.exit_status, cookie })
}
