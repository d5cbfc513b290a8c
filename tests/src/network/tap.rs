//! A TAP interface (Linux `Documentation/networking/tuntap.rst`).

#![allow(unsafe_code)]

use super::{Interface, Request, check};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

/// A TAP interface that is up, with its descriptor.
pub struct Tap {
    /// Reads and writes frames; inherited by nobody.
    pub file: File,
    /// The interface.
    pub interface: Interface,
}

impl Tap {
    /// Makes one in this thread's network namespace. The host's side has `address`.
    ///
    /// # Errors
    /// The system's; without root or TAP support among others.
    pub fn new(name: &str, address: Ipv4Addr, mtu: i32) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        let flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).map_err(io::Error::other)?;
        let mut request = Request::new(name).with(&flags.to_ne_bytes());
        let pointer = &raw mut request;
        // SAFETY: TUNSETIFF takes a `struct ifreq`, which lives during the call.
        check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, pointer) })?;
        let interface = Interface::named(name)?;
        interface.set_mtu(mtu)?;
        interface.set_address(address)?;
        interface.up()?;
        Ok(Self { file, interface })
    }

    /// Lets go of it, so that somebody else can attach to it by name. It stays until it is
    /// removed, or its namespace goes.
    ///
    /// # Errors
    /// The system's.
    pub fn release(self) -> io::Result<Interface> {
        let keep: libc::c_long = 1;
        // SAFETY: TUNSETPERSIST takes a number.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETPERSIST, keep) })?;
        Ok(self.interface)
    }
}
