//! ICMP echo over a raw socket (RFC 792, raw(7)).

#![allow(unsafe_code)]

use super::check;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::FromRawFd;
use std::time::Duration;

/// How long an answer may take before its request counts as lost.
const LOST: Duration = Duration::from_secs(2);
const REQUEST: u8 = 8;
const REPLY: u8 = 0;

/// Sends echo requests to one address, in this thread's network namespace.
pub struct Pinger {
    socket: UdpSocket,
    to: Ipv4Addr,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Pings {
    /// Answers with the contents of their requests.
    pub good: u16,
    /// Requests without an answer.
    pub lost: u16,
    /// Answers with other contents.
    pub bad: u16,
}

impl Pinger {
    /// A pinger of this address; needs root.
    ///
    /// # Errors
    /// The system's.
    pub fn new(to: Ipv4Addr) -> io::Result<Self> {
        // SAFETY: no memory is touched; the descriptor is new and ours. What `UdpSocket` does with
        // it, any socket with internet addresses can.
        let socket = unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            let fd = libc::socket(libc::AF_INET, kind, libc::IPPROTO_ICMP);
            check(fd)?;
            UdpSocket::from_raw_fd(fd)
        };
        socket.set_read_timeout(Some(LOST))?;
        Ok(Self { socket, to })
    }

    /// Sends `count` requests with `size` bytes each, `window` at a time, and waits for the
    /// answers. A window whose answers do not come is lost, and the next one follows.
    ///
    /// # Panics
    /// If nothing can be sent at all.
    pub fn ping(&self, count: u16, size: usize, window: u16) -> Pings {
        let mut pings = Pings { good: 0, lost: 0, bad: 0 };
        let mut next = 0;
        while next < count {
            let end = count.min(next + window);
            for number in next..end {
                let packet = request(number, size);
                self.socket.send_to(&packet, (self.to, 0)).expect("a request can be sent");
            }
            self.collect(next..end, size, &mut pings);
            next = end;
        }
        pings
    }

    fn collect(&self, sent: std::ops::Range<u16>, size: usize, pings: &mut Pings) {
        let mut missing: Vec<u16> = sent.collect();
        let mut packet = vec![0; 64 << 10];
        while !missing.is_empty() {
            let Ok(length) = self.socket.recv(&mut packet) else {
                pings.lost += u16::try_from(missing.len()).unwrap_or(u16::MAX);
                return;
            };
            let icmp = &packet[usize::from(packet[0] & 15) * 4..length];
            let number = u16::from_be_bytes([icmp[6], icmp[7]]);
            let Some(at) = missing.iter().position(|&n| n == number && icmp[0] == REPLY) else {
                continue;
            };
            missing.swap_remove(at);
            let intact = checksum(icmp) == 0 && icmp[4..] == request(number, size)[4..];
            *(if intact { &mut pings.good } else { &mut pings.bad }) += 1;
        }
    }
}

/// An echo request whose contents depend on its number.
fn request(number: u16, size: usize) -> Vec<u8> {
    let mut packet = vec![REQUEST, 0, 0, 0, 0x50, 0x1e];
    packet.extend(number.to_be_bytes());
    packet.extend((0..size).map(|i| (i * 7 + usize::from(number)).to_le_bytes()[0]));
    let sum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    packet
}

/// RFC 1071.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
