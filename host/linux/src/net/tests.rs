//! Ports over sockets of this process.

use super::*;
use hypervisor::memory::GuestSlice;
use rustix::io::write;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

fn stream() -> (StreamPort, OwnedFd) {
    let (ours, theirs) = pair(SocketType::STREAM);
    rustix::io::ioctl_fionbio(&ours, true).unwrap();
    (StreamPort::new(ours, MAC, 1500), theirs)
}

#[test]
fn a_stream_in_pieces_becomes_frames() {
    let (port, theirs) = stream();
    let mut frame = [0u8; 16];
    let mut receive = || port.receive(GuestSlice::from_host(&mut frame));
    assert_eq!(receive(), Ok(None));
    for byte in [0, 0, 0] {
        write(&theirs, &[byte]).unwrap();
        assert_eq!(receive(), Ok(None));
    }
    write(&theirs, b"\x02ab\0\0\0\x03cde\0").unwrap();
    assert_eq!(receive(), Ok(Some(2)));
    assert!(port.has_frame(), "the second frame is in the buffer");
    assert_eq!(receive(), Ok(Some(3)));
    assert!(!port.has_frame());
    assert_eq!(receive(), Ok(None));
    drop(theirs);
    assert!(receive().is_err(), "passt has ended");
}

#[test]
fn a_lying_stream_is_an_error_and_a_long_frame_is_cut() {
    let (port, theirs) = stream();
    let mut frame = [0u8; 4];
    write(&theirs, b"\0\0\0\x06abcdef").unwrap();
    assert_eq!(port.receive(GuestSlice::from_host(&mut frame)), Ok(Some(4)));
    assert_eq!(&frame, b"abcd");
    write(&theirs, &[0xff; 4]).unwrap();
    let chunk = [0u8; 4096];
    let mut outcome = Ok(None);
    for _ in 0..40 {
        write(&theirs, &chunk).unwrap();
        outcome = port.receive(GuestSlice::from_host(&mut frame));
    }
    assert!(outcome.is_err());
}

#[test]
fn sent_frames_carry_their_length() {
    let (port, theirs) = stream();
    port.send(GuestSlice::from_host(&mut [7u8; 300])).unwrap();
    let mut got = [0u8; 400];
    assert_eq!(rustix::io::read(&theirs, &mut got), Ok(304));
    assert_eq!(got[..5], [0, 0, 1, 44, 7]);
}

#[test]
fn a_datagram_socket_is_a_network() {
    let (ours, theirs) = pair(SocketType::DGRAM);
    rustix::io::ioctl_fionbio(&ours, true).unwrap();
    let port = FramePort { fd: ours, mac: MAC, mtu: 1500, ends: false };
    let mut frame = [0u8; 64];
    assert_eq!(port.receive(GuestSlice::from_host(&mut frame)), Ok(None));
    write(&theirs, &[1; 60]).unwrap();
    assert_eq!(port.receive(GuestSlice::from_host(&mut frame)), Ok(Some(60)));
    port.send(GuestSlice::from_host(&mut [2u8; 14])).unwrap();
    assert_eq!(rustix::io::read(&theirs, &mut frame), Ok(14));
}

#[test]
fn what_is_no_network_is_refused() {
    for spec in [
        "@",
        "@x",
        "@-1",
        "@0",
        "@9999",
        "user,tcp",
        "user,tcp=1",
        "user,tcp=0:1",
        "user,icmp=1:2",
        "a-name-that-is-too-long",
        "no-such-if0",
        "tap%d",
    ] {
        assert!(Port::attach(spec, Some(MAC)).is_err(), "{spec}");
    }
}

#[test]
fn made_up_addresses_are_local_and_unicast() {
    for _ in 0..100 {
        assert_eq!(random_mac().unwrap()[0] & 3, 2);
    }
}
