//! A user-mode network without privileges: passt(1) at the other end of a socket.
//!
//! passt gives the guest an address by DHCP, turns its TCP and UDP into sockets of the host, and
//! forwards ports to it: ports of the loopback interface, unless another address is given. The guest
//! does not reach this machine itself, unless the option `host` lets it: then it does at the
//! gateway's address, loopback services included. Without it, a UDP port that is forwarded from this
//! machine to itself gets no answers. passt ends when the socket does; what is wrong
//! with its start it says on standard error.

use super::NetError;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Command, Stdio};

/// What passt is told to announce, and what the guest may send.
pub(super) const MTU: u16 = 1500;

/// Starts passt for `user[,OPTION...]`; gives our end of the stream.
pub(super) fn start(spec: &str) -> Result<OwnedFd, NetError> {
    let words = options(spec)?;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|e| NetError::Step("socketpair", e))?;
    // passt inherits its end.
    fcntl_setfd(&theirs, FdFlags::empty())?;
    let mut command = Command::new("passt");
    command.args(["--foreground", "--quiet", "--mtu", &MTU.to_string()]);
    command.args(["--fd", &theirs.as_raw_fd().to_string()]);
    if rustix::process::geteuid().is_root() {
        // What it does anyway, after a word on it.
        command.args(["--runas", "65534:65534"]);
    }
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    match command.spawn() {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(NetError::NoPasst),
        Err(e) => return Err(NetError::Step("starting passt", errno(&e))),
    }
    ioctl_fionbio(&ours, true)?;
    Ok(ours)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The words of `user,tcp=8080:80,address=10.0.2.15/24` as passt's options.
pub(super) fn options(spec: &str) -> Result<Vec<String>, NetError> {
    let mut words = Vec::new();
    let (mut host, mut local_udp) = (false, None);
    for option in spec.split(',').skip(1) {
        let bad = || NetError::UserOption(option.to_owned());
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "tcp" => words.extend(["--tcp-ports".to_owned(), forward(value, bad, tcp_in_use)?]),
            "udp" => {
                let ports = forward(value, bad, udp_in_use)?;
                if ports.starts_with("127.") {
                    local_udp = Some(option);
                }
                words.extend(["--udp-ports".to_owned(), ports]);
            }
            "address" => words.extend(address(value).ok_or_else(bad)?),
            "gateway" => {
                let gateway: Ipv4Addr = value.parse().map_err(|_| bad())?;
                words.extend(["--gateway".to_owned(), gateway.to_string()]);
            }
            "host" if option == key => host = true,
            // The default, which older descriptions name.
            "nohost" if option == key => host = false,
            _ => return Err(bad()),
        }
    }
    if let Some(option) = local_udp.filter(|_| !host) {
        return Err(NetError::UdpNeedsHost(option.to_owned()));
    }
    if !host {
        words.push("--no-map-gw".to_owned());
    }
    Ok(words)
}

/// `[ADDRESS/]HOST:GUEST` in passt's syntax. passt itself says nothing of a port that somebody
/// else has, so we look.
fn forward(
    value: &str,
    bad: impl Fn() -> NetError,
    in_use: fn((Ipv4Addr, u16)) -> std::io::Result<()>,
) -> Result<String, NetError> {
    let (address, ports) = match value.split_once('/') {
        Some((address, ports)) => (address.parse().map_err(|_| bad())?, ports),
        None => (Ipv4Addr::LOCALHOST, value),
    };
    let (host, guest) = ports.split_once(':').ok_or_else(&bad)?;
    let port = |text: &str| text.parse::<u16>().ok().filter(|&port| port != 0).ok_or_else(&bad);
    let (host, guest) = (port(host)?, port(guest)?);
    in_use((address, host)).map_err(|e| NetError::Port(host, errno(&e)))?;
    Ok(format!("{address}/{host}:{guest}"))
}

fn tcp_in_use(at: (Ipv4Addr, u16)) -> std::io::Result<()> {
    TcpListener::bind(at).map(drop)
}

fn udp_in_use(at: (Ipv4Addr, u16)) -> std::io::Result<()> {
    UdpSocket::bind(at).map(drop)
}

/// `A.B.C.D[/BITS]`.
fn address(value: &str) -> Option<Vec<String>> {
    let (address, bits) = value.split_once('/').unwrap_or((value, "24"));
    let address: Ipv4Addr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok().filter(|bits| (1..=32).contains(bits))?;
    Some(
        ["--address", &address.to_string(), "--netmask", &bits.to_string()]
            .map(str::to_owned)
            .into(),
    )
}
