//! A network without a network: a pair of datagram sockets, one datagram for each frame. Takes no
//! privileges, so every user can test what a guest does with frames.

use super::ping::checksum;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The test's end has this hardware address.
pub const MAC_OF_TEST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const IP_OF_TEST: [u8; 4] = [10, 0, 0, 1];

/// Both ends.
pub struct Wire {
    ours: UnixDatagram,
    theirs: Option<UnixDatagram>,
}

impl Wire {
    /// Makes one.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        let (ours, theirs) = UnixDatagram::pair()?;
        ours.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { ours, theirs: Some(theirs) })
    }

    /// The guest's end, to be inherited.
    ///
    /// # Panics
    /// After [`Self::close_theirs`].
    pub fn theirs(&self) -> &UnixDatagram {
        self.theirs.as_ref().expect("still open")
    }

    /// Leaves the guest's end to the guest alone.
    pub fn close_theirs(&mut self) {
        self.theirs = None;
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.ours.send(frame).map(drop)
    }

    /// Asks who has an address; gives the hardware address of who answers (RFC 826).
    ///
    /// # Panics
    /// If nobody does in time.
    pub fn resolve(&self, ip: [u8; 4]) -> [u8; 6] {
        let mut frame = vec![0xff; 6];
        frame.extend(MAC_OF_TEST);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(MAC_OF_TEST);
        frame.extend(IP_OF_TEST);
        frame.extend([0; 6]);
        frame.extend(ip);
        self.send(&frame).expect("the guest's end is open");
        let answer = self.receive(|frame| frame.len() >= 42 && frame[20..22] == [0, 2]);
        answer[22..28].try_into().expect("six bytes")
    }

    /// Sends one echo request and checks the answer.
    ///
    /// # Panics
    /// If there is none in time, or a wrong one.
    pub fn ping(&self, mac: [u8; 6], ip: [u8; 4], contents: &[u8]) {
        let frame = echo_request(mac, ip, contents);
        self.send(&frame).expect("the guest's end is open");
        let answer = self.receive(|frame| frame.len() > 34 && frame[34] == 0 && frame[23] == 1);
        assert_eq!(answer[..6], MAC_OF_TEST);
        assert_eq!(answer[6..12], mac);
        assert_eq!((&answer[26..30], &answer[30..34]), (&ip[..], &IP_OF_TEST[..]));
        assert_eq!(checksum(&answer[14..34]), 0, "checksum of the header");
        assert_eq!(checksum(&answer[34..]), 0, "checksum of the echo");
        assert_eq!(&answer[42..], contents);
    }

    /// The next frame that is wanted; others are dropped.
    fn receive(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut frame = vec![0; 64 << 10];
        loop {
            let length = self.ours.recv(&mut frame).expect("an answer in time");
            if wanted(&frame[..length]) {
                frame.truncate(length);
                return frame;
            }
        }
    }
}

/// Ethernet, IPv4 (RFC 791) and ICMP echo (RFC 792).
fn echo_request(mac: [u8; 6], ip: [u8; 4], contents: &[u8]) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 1, 0, 1];
    icmp.extend(contents);
    let sum = checksum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let mut header = vec![0x45, 0];
    header.extend(u16::try_from(20 + icmp.len()).expect("a frame").to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 1, 0, 0]);
    header.extend(IP_OF_TEST);
    header.extend(ip);
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [&mac[..], &MAC_OF_TEST, &[8, 0], &header, &icmp].concat()
}
