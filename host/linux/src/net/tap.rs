//! TAP interfaces (Linux `Documentation/networking/tuntap.rst`, netdevice(7)).

#![allow(unsafe_code)]

use super::NetError;
use crate::sys::syscall;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, ioctl_fioclex, ioctl_fionbio};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Ethernet's MTU, for descriptors that have none of their own.
const DEFAULT_MTU: u16 = 1500;

const NAME: usize = libc::IFNAMSIZ;
const SIOCETHTOOL: u64 = 0x8946;

/// `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; NAME],
    data: [u8; 24],
}

impl Request {
    fn new(name: &str) -> Result<Self, NetError> {
        // The kernel takes `%d` for a pattern of its own.
        if name.len() >= NAME || name.contains('%') {
            return Err(NetError::System(Errno::NAMETOOLONG));
        }
        let mut request = Self { name: [0; NAME], data: [0; 24] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(request)
    }

    fn short(&self) -> u16 {
        u16::from_ne_bytes([self.data[0], self.data[1]])
    }

    fn int(&self) -> i32 {
        i32::from_ne_bytes([self.data[0], self.data[1], self.data[2], self.data[3]])
    }
}

fn ioctl(fd: &OwnedFd, code: u64, request: &mut Request) -> Result<(), Errno> {
    let fd = usize::try_from(fd.as_raw_fd()).unwrap_or(usize::MAX);
    let code = usize::try_from(code).unwrap_or(0);
    // SAFETY: all codes used here take a `struct ifreq`.
    unsafe { syscall(libc::SYS_ioctl, [fd, code, request as *mut Request as usize, 0, 0, 0]) }
        .map(drop)
}

fn control_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// Looks whether [`attach`] would find a TAP of this name, in this process's network namespace.
pub(super) fn check(name: &str) -> Result<(), NetError> {
    look(name).map(drop)
}

/// An interface that is there, up, and a TAP; gives the socket that was asked.
fn look(name: &str) -> Result<OwnedFd, NetError> {
    let control = control_socket().map_err(|e| NetError::Step("socket", e))?;
    check_up(&control, name)?;
    if !is_tap(&control, name) {
        return Err(NetError::NotTap(name.to_owned()));
    }
    Ok(control)
}

/// Attaches an interface that exists and is up; gives its descriptor and MTU.
pub(super) fn attach(name: &str) -> Result<(OwnedFd, u16), NetError> {
    let control = look(name)?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tap = open("/dev/net/tun", flags, Mode::empty())
        .map_err(|e| NetError::Step("/dev/net/tun", e))?;
    let mut request = Request::new(name)?;
    let tap_flags = u16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap_or(0);
    request.data[..2].copy_from_slice(&tap_flags.to_ne_bytes());
    ioctl(&tap, libc::TUNSETIFF, &mut request).map_err(|error| match error {
        Errno::PERM => NetError::Foreign(name.to_owned()),
        Errno::BUSY => NetError::InUse,
        // A TAP that was made with other flags, such as several queues.
        Errno::INVAL => NetError::NotTap(name.to_owned()),
        other => NetError::System(other),
    })?;
    let mtu = mtu(&control, name)?;
    whole_frames_only(&control, name);
    Ok((tap, mtu))
}

fn check_up(control: &OwnedFd, name: &str) -> Result<(), NetError> {
    let mut request = Request::new(name)?;
    match ioctl(control, libc::SIOCGIFFLAGS, &mut request) {
        Err(Errno::NODEV) => return Err(NetError::Missing(name.to_owned())),
        other => other?,
    }
    let up = u16::try_from(libc::IFF_UP).unwrap_or(0);
    if request.short() & up == 0 {
        return Err(NetError::Down(name.to_owned()));
    }
    Ok(())
}

/// Whether the driver says so (Linux `drivers/net/tun.c`, `tun_get_drvinfo`).
fn is_tap(control: &OwnedFd, name: &str) -> bool {
    /// `struct ethtool_drvinfo`.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [u8; 32],
        versions: [u8; 64],
        bus: [u8; 32],
        rest: [u8; 64],
    }
    const ETHTOOL_GDRVINFO: u32 = 3;
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        versions: [0; 64],
        bus: [0; 32],
        rest: [0; 64],
    };
    let asked = Request::new(name).is_ok_and(|mut request| {
        let pointer = (&raw mut info) as usize;
        request.data[..8].copy_from_slice(&pointer.to_ne_bytes());
        ioctl(control, SIOCETHTOOL, &mut request).is_ok()
    });
    asked && info.driver.starts_with(b"tun\0") && info.bus.starts_with(b"tap\0")
}

fn mtu(control: &OwnedFd, name: &str) -> Result<u16, NetError> {
    let mut request = Request::new(name)?;
    ioctl(control, libc::SIOCGIFMTU, &mut request)?;
    Ok(u16::try_from(request.int()).unwrap_or(u16::MAX))
}

/// Turns GRO and GSO off: without them the kernel hands out frames longer than the MTU, which a
/// guest could only cut. Best effort, as it takes privileges that a TAP's owner may not have.
fn whole_frames_only(control: &OwnedFd, name: &str) {
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    const ETHTOOL_SGSO: u32 = 0x24;
    const ETHTOOL_SGRO: u32 = 0x2c;
    for command in [ETHTOOL_SGRO, ETHTOOL_SGSO] {
        let mut value = EthtoolValue { command, data: 0 };
        if let Ok(mut request) = Request::new(name) {
            let pointer = (&raw mut value) as usize;
            request.data[..8].copy_from_slice(&pointer.to_ne_bytes());
            let _ = ioctl(control, SIOCETHTOOL, &mut request);
        }
    }
}

/// Takes over a descriptor that was open when this process started; gives it and its MTU.
pub(super) fn adopt(number: &str) -> Result<(OwnedFd, u16), NetError> {
    let bad = || NetError::Descriptor(number.to_owned());
    let raw: RawFd = number.parse().map_err(|_| bad())?;
    // Below are the standard streams, which a network can hardly be.
    if raw < 3 {
        return Err(bad());
    }
    let args = [usize::try_from(raw).map_err(|_| bad())?, 0, 0, 0, 0, 0];
    const F_GETFD: usize = 1;
    const FD_CLOEXEC: usize = 1;
    // SAFETY: asks for flags only.
    let flags = unsafe { syscall(libc::SYS_fcntl, [args[0], F_GETFD, 0, 0, 0, 0]) }
        .or_else(|e| if e == Errno::NOSYS { Ok(0) } else { Err(bad()) })?;
    // One that this process has opened itself, or taken over before: it was not given to us.
    if flags & FD_CLOEXEC != 0 {
        return Err(bad());
    }
    // SAFETY: open, as just asked, and given to us by the user.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    // A program that we start, such as passt, has no use for it.
    ioctl_fioclex(&fd)?;
    ioctl_fionbio(&fd, true)?;
    let mtu = adopted_mtu(&fd)?.unwrap_or(DEFAULT_MTU);
    Ok((fd, mtu))
}

/// The MTU of the interface behind a TAP's descriptor; `None` for a descriptor of another kind,
/// or where the interface is in another network namespace.
fn adopted_mtu(fd: &OwnedFd) -> Result<Option<u16>, NetError> {
    let mut request = Request::new("")?;
    if ioctl(fd, libc::TUNGETIFF, &mut request).is_err() {
        return Ok(None);
    }
    let has = |flag| request.short() & u16::try_from(flag).unwrap_or(0) != 0;
    if !has(libc::IFF_TAP) || !has(libc::IFF_NO_PI) || has(libc::IFF_VNET_HDR) {
        return Err(NetError::TapFlags(fd.as_raw_fd()));
    }
    let end = request.name.iter().position(|&b| b == 0).unwrap_or(NAME - 1);
    let Ok(name) = core::str::from_utf8(&request.name[..end]) else { return Ok(None) };
    let Ok(control) = control_socket() else { return Ok(None) };
    whole_frames_only(&control, name);
    Ok(mtu(&control, name).ok())
}
