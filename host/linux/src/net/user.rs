//! A user-mode network without privileges: passt(1) at the other end of a socket.
//!
//! passt gives the guest an address by DHCP, turns its TCP and UDP into sockets of the host, and
//! forwards ports to it. The stream between us is QEMU's: each frame after its length in 32 bits,
//! big-endian. passt ends when the socket does.

#![allow(unsafe_code)]

use super::{NetError, failed};
use crate::wait::Buffered;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use hypervisor::host::{HostError, NetPort};
use hypervisor::memory::GuestSlice;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::io::{Errno, FdFlags, IoSlice, fcntl_setfd, ioctl_fionbio, read, writev};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::process::{Command, Stdio};

/// What passt is told to announce, and what the guest may send.
const MTU: u16 = 1500;
/// Largest frame that passt may send: its own limit.
const FRAME_MAX: usize = 65_536;
/// Room for received bytes.
const BUFFER: usize = 2 * FRAME_MAX;

/// Received bytes that are not yet the guest's: `bytes[start..end]`.
struct Received {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

/// The guest's end of the stream.
pub struct UserPort {
    socket: OwnedFd,
    mac: [u8; 6],
    received: UnsafeCell<Received>,
    busy: AtomicBool,
}

// SAFETY: `received` is used only by who has set `busy`.
unsafe impl Sync for UserPort {}

impl UserPort {
    /// Starts passt for `user[,tcp=HOST:GUEST][,udp=HOST:GUEST]...`.
    pub(super) fn start(spec: &str, mac: [u8; 6]) -> Result<Self, NetError> {
        let forwards = forwards(spec)?;
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|e| NetError::Step("socketpair", e))?;
        // passt inherits its end.
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let mut command = Command::new("passt");
        command.args(["--foreground", "--quiet", "--mtu", "1500", "--fd"]);
        command.arg(theirs.as_raw_fd().to_string()).args(forwards);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(NetError::NoPasst),
            Err(e) => {
                let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
                return Err(NetError::Step("starting passt", errno));
            }
        }
        drop(theirs);
        Self::over(ours, mac)
    }

    /// Over a connected stream socket.
    pub(super) fn over(socket: OwnedFd, mac: [u8; 6]) -> Result<Self, NetError> {
        ioctl_fionbio(&socket, true)?;
        let bytes = vec![0; BUFFER].into_boxed_slice();
        let received = UnsafeCell::new(Received { bytes, start: 0, end: 0 });
        Ok(Self { socket, mac, received, busy: AtomicBool::new(false) })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Runs `f` with the buffer, or gives `None` while somebody else has it.
    fn with<T>(&self, f: impl FnOnce(&mut Received) -> T) -> Option<T> {
        if self.busy.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: `busy` was free and is ours.
        let result = f(unsafe { &mut *self.received.get() });
        self.busy.store(false, Ordering::Release);
        Some(result)
    }

    fn send_all(&self, frame: &[u8]) -> Result<(), Errno> {
        let length = u32::try_from(frame.len()).map_err(|_| Errno::MSGSIZE)?.to_be_bytes();
        let total = length.len() + frame.len();
        let mut sent = 0;
        while sent < total {
            let head = &length[sent.min(length.len())..];
            let body = &frame[sent.saturating_sub(length.len())..];
            match writev(&self.socket, &[IoSlice::new(head), IoSlice::new(body)]) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                // A frame that has begun has to be finished, or the stream is out of step.
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], None)?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The words of `user,tcp=8080:80` as passt's options.
fn forwards(spec: &str) -> Result<Vec<String>, NetError> {
    let mut words = Vec::new();
    for option in spec.split(',').skip(1) {
        let bad = || NetError::UserOption(option.to_owned());
        let (kind, ports) = option.split_once('=').ok_or_else(bad)?;
        let (host, guest) = ports.split_once(':').ok_or_else(bad)?;
        let valid = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
        if !valid(host) || !valid(guest) {
            return Err(bad());
        }
        let flag = match kind {
            "tcp" => "--tcp-ports",
            "udp" => "--udp-ports",
            _ => return Err(bad()),
        };
        words.extend([flag.to_owned(), ports.to_owned()]);
    }
    Ok(words)
}

impl Received {
    /// The first whole frame, as a range of `bytes`.
    fn frame(&self) -> Option<core::ops::Range<usize>> {
        let rest = &self.bytes[self.start..self.end];
        let (length, _) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let start = self.start + 4;
        let end = start.checked_add(length)?;
        (end <= self.end).then_some(start..end)
    }

    /// Reads more; `Ok(false)` if there is nothing at the moment.
    fn fill(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.bytes.len() {
            // More than the largest frame, and no frame: out of step.
            return Err(Errno::PROTO);
        }
        match read(socket, &mut self.bytes[self.end..]) {
            Ok(0) => Err(Errno::PIPE),
            Ok(count) => {
                self.end += count;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn take(&mut self, socket: &OwnedFd, to: GuestSlice<'_>) -> Result<Option<usize>, Errno> {
        loop {
            if let Some(frame) = self.frame() {
                self.start = frame.end;
                return Ok(Some(to.copy_from(&self.bytes[frame])));
            }
            if !self.fill(socket)? {
                return Ok(None);
            }
        }
    }
}

impl NetPort for UserPort {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        MTU
    }

    fn send(&self, frame: GuestSlice<'_>) -> Result<(), HostError> {
        // SAFETY: only the kernel reads through it, during the call.
        let bytes = unsafe { core::slice::from_raw_parts(frame.as_ptr(), frame.len()) };
        self.send_all(bytes).map_err(|e| failed(e, "sending a frame to passt"))
    }

    fn receive(&self, to: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
        let taken = self.with(|received| received.take(&self.socket, to));
        taken.unwrap_or(Ok(None)).map_err(|e| failed(e, "receiving a frame from passt"))
    }
}

impl Buffered for UserPort {
    fn has_frame(&self) -> bool {
        self.with(|received| received.frame().is_some()).unwrap_or(false)
    }

    fn has_unsent(&self) -> bool {
        false
    }
}
