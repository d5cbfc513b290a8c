//! Networks: a TAP interface, a descriptor that somebody has opened, or a user-mode network.

#![allow(unsafe_code)]

mod tap;
mod user;

use crate::confine::Rule;
use crate::wait::Buffered;
use hypervisor::host::{HostError, NetPort};
use hypervisor::memory::GuestSlice;
use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::sync::Arc;

/// Why a network cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The system's word.
    #[error("{0}")]
    System(#[from] Errno),
    /// The system's word on one step.
    #[error("{0}: {1}")]
    Step(&'static str, Errno),
    /// No such interface.
    #[error("No such interface; make it with `ip tuntap add {0} mode tap`")]
    Missing(String),
    /// It is down.
    #[error("Network is down; bring it up with `ip link set {0} up`")]
    Down(String),
    /// Not a descriptor's number.
    #[error("`{0}' is not the number of an open descriptor")]
    Descriptor(String),
    /// passt is not there.
    #[error("a user-mode network needs the program passt; install the package passt")]
    NoPasst,
    /// An option of a user-mode network that does not exist.
    #[error("`{0}' is not an option of a user-mode network; use tcp=HOST:GUEST or udp=HOST:GUEST")]
    UserOption(String),
}

/// An attached network.
pub enum Port {
    /// One system call for each frame.
    Frames(FramePort),
    /// A stream of frames.
    User(Arc<user::UserPort>),
}

impl Port {
    /// Attaches `IFACE`, `@FD` or `user[,OPTION...]`. Without a hardware address, one is made up.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn attach(spec: &str, mac: Option<[u8; 6]>) -> Result<Self, NetError> {
        let mac = mac.map_or_else(random_mac, Ok)?;
        if spec == "user" || spec.starts_with("user,") {
            return Ok(Self::User(Arc::new(user::UserPort::start(spec, mac)?)));
        }
        let (fd, mtu) = match spec.strip_prefix('@') {
            Some(number) => tap::adopt(number)?,
            None => tap::attach(spec)?,
        };
        Ok(Self::Frames(FramePort { fd, mac, mtu }))
    }

    /// Its descriptor.
    pub fn fd(&self) -> RawFd {
        match self {
            Self::Frames(port) => port.fd.as_raw_fd(),
            Self::User(port) => port.fd(),
        }
    }

    /// The system calls that serving it takes.
    pub fn rules(&self) -> Vec<Rule> {
        let fd = self.fd();
        let read = Rule::on_fd(libc::SYS_read, fd, "receive frames");
        match self {
            Self::Frames(_) => vec![read, Rule::on_fd(libc::SYS_write, fd, "send a frame")],
            Self::User(_) => vec![
                read,
                Rule::on_fd(libc::SYS_writev, fd, "send a frame and its length"),
                Rule::any(libc::SYS_poll, "wait for room in the stream of frames"),
            ],
        }
    }

    /// What the kernel cannot say about it: whether a frame waits in this process.
    pub fn buffered(&self) -> Option<Arc<dyn Buffered>> {
        match self {
            Self::Frames(_) => None,
            Self::User(port) => Some(Arc::<user::UserPort>::clone(port)),
        }
    }

    /// As a guest's network.
    pub fn into_box(self) -> Box<dyn NetPort> {
        match self {
            Self::Frames(port) => Box::new(port),
            Self::User(port) => Box::new(port),
        }
    }

    /// Hardware address and MTU.
    pub fn address(&self) -> ([u8; 6], u16) {
        match self {
            Self::Frames(port) => (port.mac, port.mtu),
            Self::User(port) => (port.mac(), port.mtu()),
        }
    }
}

/// A locally administered unicast address (IEEE 802-2014 §8.2).
fn random_mac() -> Result<[u8; 6], NetError> {
    let mut mac = [0; 6];
    rustix::rand::getrandom(&mut mac, rustix::rand::GetRandomFlags::empty())?;
    mac[0] = mac[0] & !1 | 2;
    Ok(mac)
}

/// A descriptor of which each read and write is a frame: a TAP, or a datagram socket.
pub struct FramePort {
    fd: OwnedFd,
    mac: [u8; 6],
    mtu: u16,
}

impl NetPort for FramePort {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn send(&self, frame: GuestSlice<'_>) -> Result<(), HostError> {
        // SAFETY: only the kernel reads through it, during the call.
        let bytes = unsafe { core::slice::from_raw_parts(frame.as_ptr(), frame.len()) };
        loop {
            match rustix::io::write(&self.fd, bytes) {
                Ok(count) if count == bytes.len() => return Ok(()),
                // The queue is full: a network may lose frames.
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(()),
                Ok(_) => return Err(failed(Errno::IO, "sending a frame")),
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed(e, "sending a frame")),
            }
        }
    }

    fn receive(&self, to: GuestSlice<'_>) -> Result<Option<usize>, HostError> {
        loop {
            match crate::transfer::read(self.fd.as_fd(), to) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(None),
                Ok(count) => return Ok(Some(count)),
                Err(Errno::INTR) => {}
                Err(e) => return Err(failed(e, "receiving a frame")),
            }
        }
    }
}

fn failed(error: Errno, what: &'static str) -> HostError {
    HostError::from_errno(error.raw_os_error(), what)
}

#[cfg(test)]
mod tests;
