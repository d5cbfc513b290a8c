//! Finds the packets in what a peer sends ("Debugging with GDB", §E.1): `$`, a body, `#` and two
//! hexadecimal digits, its checksum. Between packets there are acknowledgements (`+`, `-`) and
//! interrupts. Whoever sends anything else is no debugger: a web page can make a browser connect to
//! any port of its own machine and send a request with packets in it.

/// Bytes of a packet, frame included. The debugger is told so, and keeps to it.
pub const LONGEST: usize = 4096;

/// What a byte has completed.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A packet, frame included, with a right checksum.
    Packet(&'a [u8]),
    /// A packet with a wrong checksum.
    Broken,
    /// The debugger asks to interrupt the guest.
    Interrupt,
    /// A byte between packets that means nothing there.
    Stray,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Body,
    /// The first or the second digit of the checksum comes next.
    Checksum(u8),
}

/// Collects bytes.
pub struct Framer {
    packet: [u8; LONGEST],
    len: usize,
    place: Place,
}

const INTERRUPT: u8 = 3;

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// One that has seen nothing.
    pub const fn new() -> Self {
        Self { packet: [0; LONGEST], len: 0, place: Place::Outside }
    }

    /// Takes the next byte.
    pub fn push(&mut self, byte: u8) -> Option<Frame<'_>> {
        match (self.place, byte) {
            (Place::Outside, INTERRUPT) => return Some(Frame::Interrupt),
            // A new packet, also where an old one was cut off.
            (Place::Outside | Place::Body, b'$') => {
                self.len = 0;
                self.place = Place::Body;
            }
            (Place::Outside, b'+' | b'-') => return None,
            (Place::Outside, _) => return Some(Frame::Stray),
            (Place::Body, b'#') => self.place = Place::Checksum(0),
            (Place::Body | Place::Checksum(0), _) => {
                if self.place != Place::Body {
                    self.place = Place::Checksum(1);
                }
            }
            (Place::Checksum(_), _) => self.place = Place::Outside,
        }
        let Some(room) = self.packet.get_mut(self.len) else {
            self.place = Place::Outside;
            return Some(Frame::Broken);
        };
        *room = byte;
        self.len += 1;
        (self.place == Place::Outside).then(|| self.checked())
    }

    fn checked(&self) -> Frame<'_> {
        let packet = &self.packet[..self.len];
        match packet {
            [b'$', body @ .., b'#', high, low] if hex(*high, *low) == Some(sum(body)) => {
                Frame::Packet(packet)
            }
            _ => Frame::Broken,
        }
    }
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// The checksum of a packet's body.
pub fn sum(body: &[u8]) -> u8 {
    body.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn frames(bytes: &[u8]) -> Vec<Result<Vec<u8>, &'static str>> {
        let mut framer = Framer::new();
        let mut all = Vec::new();
        for &byte in bytes {
            all.extend(framer.push(byte).map(|frame| match frame {
                Frame::Packet(packet) => Ok(packet.to_vec()),
                Frame::Broken => Err("broken"),
                Frame::Interrupt => Err("interrupt"),
                Frame::Stray => Err("stray"),
            }));
        }
        all
    }

    #[test]
    fn packets_stand_between_acknowledgements_and_nothing_else() {
        assert_eq!(
            frames(b"+-$g#67\x03$?#3F++"),
            [Ok(b"$g#67".to_vec()), Err("interrupt"), Ok(b"$?#3F".to_vec()),]
        );
        assert_eq!(frames(b"P$g#67"), [Err("stray"), Ok(b"$g#67".to_vec())]);
        for byte in (0..=255).filter(|byte| !b"+-$\x03".contains(byte)) {
            assert_eq!(frames(&[byte]), [Err("stray")]);
        }
        assert_eq!(frames(b"$cut$g#67"), [Ok(b"$g#67".to_vec())]);
        assert_eq!(frames(b"$#00"), [Ok(b"$#00".to_vec())]);
        assert_eq!(frames(b"$\x03#03"), [Ok(b"$\x03#03".to_vec())], "binary data");
    }

    #[test]
    fn wrong_checksums_are_told() {
        for packet in [b"$g#68", b"$g#6x", b"$g###", b"$g#$$"] {
            assert_eq!(frames(packet), [Err("broken")]);
        }
    }

    #[test]
    fn a_packet_that_does_not_end_is_cut() {
        let mut bytes = Vec::from([b'a'; LONGEST - 4]);
        bytes.insert(0, b'$');
        let end = alloc::format!("#{:02x}", sum(&bytes[1..]));
        bytes.extend(end.bytes());
        assert_eq!(bytes.len(), LONGEST);
        assert_eq!(frames(&bytes), [Ok(bytes.clone())]);
        bytes.insert(1, b'a');
        assert_eq!(frames(&bytes), [Err("broken")]);
    }
}
