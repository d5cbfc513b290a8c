//! ARP and ICMP echo without a TCP/IP stack: each request is turned round in its own buffer.
//!
//! RFC 826 (ARP), RFC 791 (IPv4), RFC 792 (ICMP).

use crate::GONE;
use crate::options::Options;
use alloc::vec;
use core::time::Duration;
use unikernel::{Error, Net, poll, println};

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const ETHERNET: usize = 14;
const PROTOCOL_ICMP: u8 = 1;
const ECHO_REQUEST: u8 = 8;

/// What an answer was for.
#[derive(PartialEq, Eq)]
enum Kind {
    Arp,
    Echo,
}

/// Answers until the limit is reached.
///
/// # Errors
/// If the host's end of the network is gone.
pub fn run(mut net: Net, options: &Options) -> Result<(), &'static str> {
    let (mac, ip) = (net.mac(), options.ip.address().octets());
    let mut frame = vec![0; net.frame_size()];
    println!("ready: {}, arp and icmp echo only", options.ip);
    let mut answers = 0;
    while answers < options.limit {
        match net.receive(&mut frame) {
            Ok(len) => match answer(&mut frame[..len], mac, ip) {
                Some(kind) if net.send(&frame[..len]).is_ok() => {
                    answers += u64::from(kind == Kind::Echo);
                }
                _ => {}
            },
            Err(Error::WouldBlock) => {
                poll::wait(Duration::from_secs(3600));
            }
            Err(_) => return Err(GONE),
        }
    }
    Ok(())
}

/// Turns a request into its answer.
fn answer(frame: &mut [u8], mac: [u8; 6], ip: [u8; 4]) -> Option<Kind> {
    let kind = match frame.get(12..14)? {
        kind if kind == ARP => arp(frame.get_mut(ETHERNET..)?, mac, ip)?,
        kind if kind == IPV4 => echo(frame.get_mut(ETHERNET..)?, ip)?,
        _ => return None,
    };
    frame.copy_within(6..12, 0);
    frame[6..12].copy_from_slice(&mac);
    Some(kind)
}

fn arp(packet: &mut [u8], mac: [u8; 6], ip: [u8; 4]) -> Option<Kind> {
    let request = [0, 1, 8, 0, 6, 4, 0, 1];
    if packet.get(..8)? != request || packet.get(24..28)? != ip {
        return None;
    }
    packet[7] = 2;
    packet.copy_within(8..18, 18);
    packet[8..14].copy_from_slice(&mac);
    packet[14..18].copy_from_slice(&ip);
    Some(Kind::Arp)
}

fn echo(packet: &mut [u8], ip: [u8; 4]) -> Option<Kind> {
    let header = usize::from(packet.first()? & 15) * 4;
    let icmp = packet.get(header..)?;
    let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff;
    let ours = packet.get(9)? == &PROTOCOL_ICMP && packet.get(16..20)? == ip && fragment == 0;
    if !ours || header < 20 || icmp.len() < 8 || icmp[0] != ECHO_REQUEST {
        return None;
    }
    // Swapping the addresses leaves the header's checksum as it is.
    packet.copy_within(12..16, 16);
    packet[12..16].copy_from_slice(&ip);
    packet[header] = 0;
    let checksum = u16::from_be_bytes([packet[header + 2], packet[header + 3]]);
    let updated = add_ones_complement(checksum, u16::from(ECHO_REQUEST) << 8);
    packet[header + 2..header + 4].copy_from_slice(&updated.to_be_bytes());
    Some(Kind::Echo)
}

/// RFC 1624: taking a word away from the data adds it to the checksum.
fn add_ones_complement(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}
