//! A network interface: address, MTU, up, and gone (netdevice(7), rtnetlink(7)).

#![allow(unsafe_code)]

use super::{Request, check};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd};

/// An interface of this thread's network namespace.
pub struct Interface {
    name: String,
    control: UdpSocket,
}

impl Interface {
    /// The interface with this name.
    ///
    /// # Errors
    /// If there are no sockets.
    pub fn named(name: &str) -> io::Result<Self> {
        let control = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        Ok(Self { name: name.to_owned(), control })
    }

    /// Brings it up.
    ///
    /// # Errors
    /// The system's.
    pub fn up(&self) -> io::Result<()> {
        let flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
        self.ioctl(libc::SIOCSIFFLAGS, &flags.to_ne_bytes())
    }

    /// Sets the largest payload of a frame.
    ///
    /// # Errors
    /// The system's.
    pub fn set_mtu(&self, mtu: i32) -> io::Result<()> {
        self.ioctl(libc::SIOCSIFMTU, &mtu.to_ne_bytes())
    }

    /// Sets its address, of a network of 256.
    ///
    /// # Errors
    /// The system's.
    pub fn set_address(&self, address: Ipv4Addr) -> io::Result<()> {
        self.ioctl(libc::SIOCSIFADDR, &internet(address))?;
        self.ioctl(libc::SIOCSIFNETMASK, &internet(Ipv4Addr::new(255, 255, 255, 0)))
    }

    /// Removes it from the system, whoever uses it.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self) -> io::Result<()> {
        let mut answer = Request::new(&self.name);
        self.request(libc::SIOCGIFINDEX, &mut answer)?;
        // SAFETY: no memory is touched; the descriptor is new and ours.
        let mut netlink = unsafe {
            let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            check(fd)?;
            File::from_raw_fd(fd)
        };
        netlink.write_all(&delete_link(&answer.data[..4]))?;
        let mut reply = [0; 1024];
        let count = netlink.read(&mut reply)?;
        let error = reply[..count].get(16..20).and_then(|word| word.try_into().ok());
        match error.map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
            None => Err(io::Error::other("a netlink answer that is too short")),
        }
    }

    fn ioctl(&self, code: u64, data: &[u8]) -> io::Result<()> {
        self.request(code, &mut Request::new(&self.name).with(data))
    }

    fn request(&self, code: u64, request: &mut Request) -> io::Result<()> {
        // SAFETY: all codes used here take a `struct ifreq`, which lives during the call.
        check(unsafe { libc::ioctl(self.control.as_raw_fd(), code, request as *mut Request) })
    }
}

/// `struct sockaddr_in`.
fn internet(address: Ipv4Addr) -> [u8; 8] {
    let [a, b, c, d] = address.octets();
    let [low, high] = 2u16.to_ne_bytes();
    [low, high, 0, 0, a, b, c, d]
}

/// `struct nlmsghdr` and `struct ifinfomsg` of an RTM_DELLINK that wants an answer.
fn delete_link(index: &[u8]) -> Vec<u8> {
    const REQUEST_WITH_ANSWER: u16 = 1 | 4;
    let mut message = 32u32.to_ne_bytes().to_vec();
    message.extend(libc::RTM_DELLINK.to_ne_bytes());
    message.extend(REQUEST_WITH_ANSWER.to_ne_bytes());
    message.extend([0; 12]);
    message.extend(index);
    message.extend([0; 8]);
    message
}
