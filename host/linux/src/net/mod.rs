//! Networks: a TAP interface, a descriptor that somebody has opened, or a user-mode network.

mod frame;
mod stream;
mod tap;
mod user;

pub use frame::FramePort;
pub use stream::StreamPort;

use crate::confine::Rule;
use crate::sys::Words;
use crate::wait::Buffered;
use hypervisor::host::{HostError, NetPort};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use std::sync::Arc;

/// Why a network cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The system's word.
    #[error("{}", Words(*.0))]
    System(#[from] Errno),
    /// The system's word on one step.
    #[error("{}: {}", .0, Words(*.1))]
    Step(&'static str, Errno),
    /// No such interface.
    #[error("No such interface; make it with `ip tuntap add {0} mode tap`")]
    Missing(String),
    /// It is an interface of another kind.
    #[error("this is no TAP interface with one queue; make one with `ip tuntap add NAME mode tap`")]
    NotTap(String),
    /// It is down.
    #[error("Network is down; bring it up with `ip link set {0} up`")]
    Down(String),
    /// It belongs to somebody else.
    #[error(
        "Operation not permitted; make it with `ip tuntap add {0} mode tap user $USER`, or \
         use a network without root, `user'"
    )]
    Foreign(String),
    /// Another program has it.
    #[error("Device or resource busy; end the program that has it, or make another one")]
    InUse,
    /// Not a descriptor's number.
    #[error("`{0}' is not the number of an open descriptor")]
    Descriptor(String),
    /// passt is not there.
    #[error("a user-mode network needs the program passt; install the package passt")]
    NoPasst,
    /// An option of a user-mode network that does not exist.
    #[error(
        "`{0}' is not an option of a user-mode network; use tcp=HOST:GUEST, udp=HOST:GUEST, \
         address=A.B.C.D/BITS, gateway=A.B.C.D or host"
    )]
    UserOption(String),
    /// Answers from the guest would have to come from this machine's own address.
    #[error(
        "`{0}' forwards a UDP port of this machine to itself, which needs the option host (the guest \
         then reaches this machine's own services, too); or name another address"
    )]
    UdpNeedsHost(String),
    /// A port of this machine that cannot be forwarded.
    #[error("port {} of this machine: {}; choose another", .0, Words(*.1))]
    Port(u16, Errno),
    /// A TAP that was opened in another way than frames alone need.
    #[error(
        "the TAP behind `@{0}' must be opened with IFF_TAP and IFF_NO_PI, without IFF_VNET_HDR"
    )]
    TapFlags(RawFd),
}

/// An attached network.
pub enum Port {
    /// One system call for each frame.
    Frames(FramePort),
    /// A stream of frames.
    Stream(Arc<StreamPort>),
}

impl Port {
    /// Attaches `IFACE`, `@FD` or `user[,OPTION...]`. Without a hardware address, one is made up.
    ///
    /// `@FD` may be a TAP, a datagram or packet socket with a frame in each message, or a stream
    /// socket with each frame after its length (32 bits, big-endian). Options of `user` are
    /// `tcp=[ADDRESS/]HOST:GUEST` and `udp=[ADDRESS/]HOST:GUEST` (forwarded ports, any number of
    /// them), `address=A.B.C.D[/BITS]`, `gateway=A.B.C.D` and `host`.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn attach(spec: &str, mac: Option<[u8; 6]>) -> Result<Self, NetError> {
        let mac = mac.map_or_else(random_mac, Ok)?;
        if spec == "user" || spec.starts_with("user,") {
            let port = StreamPort::new(user::start(spec)?, mac, user::MTU);
            return Ok(Self::Stream(Arc::new(port)));
        }
        match spec.strip_prefix('@') {
            Some(number) => tap::adopt(number).map(|(fd, mtu)| Self::over(fd, mac, mtu)),
            None => {
                let (fd, mtu) = tap::attach(spec)?;
                Ok(Self::Frames(FramePort { fd, mac, mtu, ends: true }))
            }
        }
    }

    /// Looks whether [`Port::attach`] would find the interface that `spec` names, by the same calls
    /// and without attaching it. What is no interface's name is not looked at.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn check(spec: &str) -> Result<(), NetError> {
        let named = spec != "user" && !spec.starts_with("user,") && !spec.starts_with('@');
        if named { tap::check(spec) } else { Ok(()) }
    }

    /// Over a descriptor of any kind that does not block.
    fn over(fd: OwnedFd, mac: [u8; 6], mtu: u16) -> Self {
        match socket_type(&fd) {
            Ok(SocketType::STREAM) => Self::Stream(Arc::new(StreamPort::new(fd, mac, mtu))),
            Ok(SocketType::DGRAM) => Self::Frames(FramePort { fd, mac, mtu, ends: false }),
            _ => Self::Frames(FramePort { fd, mac, mtu, ends: true }),
        }
    }

    /// Its descriptor.
    pub fn fd(&self) -> RawFd {
        match self {
            Self::Frames(port) => port.fd.as_raw_fd(),
            Self::Stream(port) => port.fd(),
        }
    }

    /// The system calls that serving it takes.
    pub fn rules(&self) -> Vec<Rule> {
        let send = match self {
            Self::Frames(_) => Rule::on_fd(libc::SYS_write, self.fd(), "send a frame"),
            Self::Stream(_) => Rule::on_fd(libc::SYS_writev, self.fd(), "send a frame"),
        };
        vec![Rule::on_fd(libc::SYS_read, self.fd(), "receive frames"), send]
    }

    /// What the kernel cannot say about it: whether a frame waits in this process.
    pub fn buffered(&self) -> Option<Arc<dyn Buffered>> {
        match self {
            Self::Frames(_) => None,
            Self::Stream(port) => Some(Arc::<StreamPort>::clone(port)),
        }
    }

    /// As a guest's network.
    pub fn into_box(self) -> Box<dyn NetPort> {
        match self {
            Self::Frames(port) => Box::new(port),
            Self::Stream(port) => Box::new(port),
        }
    }

    /// Hardware address and MTU.
    pub fn address(&self) -> ([u8; 6], u16) {
        match self {
            Self::Frames(port) => (port.mac, port.mtu),
            Self::Stream(port) => (port.mac(), port.mtu()),
        }
    }
}

/// A locally administered unicast address (IEEE 802-2014 §8.2).
/// What tells this machine from others (machine-id(5)); where there is nothing, it is random, and
/// addresses that are derived from it change with every start.
pub fn machine_id() -> Vec<u8> {
    let id = std::fs::read("/etc/machine-id").unwrap_or_default();
    if id.trim_ascii().is_empty() {
        return random_mac().map_or_else(|_| Vec::new(), Vec::from);
    }
    id.trim_ascii().to_vec()
}

fn random_mac() -> Result<[u8; 6], NetError> {
    let mut mac = [0; 6];
    rustix::rand::getrandom(&mut mac, rustix::rand::GetRandomFlags::empty())?;
    mac[0] = mac[0] & !1 | 2;
    Ok(mac)
}

fn failed(error: Errno, what: &'static str) -> HostError {
    HostError::from_errno(error.raw_os_error(), what)
}

#[cfg(test)]
mod tests;
