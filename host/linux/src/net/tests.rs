//! Ports over sockets of this process.

use super::*;
use hypervisor::host::HostErrorKind;
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
        "user,tcp=1:99999",
        "user,tcp=x/1:2",
        "user,address=10.0.0.1/33",
        "user,address=--help",
        "user,nohost=1",
        "user,",
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

#[test]
fn a_full_stream_loses_whole_frames_and_stays_in_step() {
    let (port, theirs) = stream();
    let mut frame = [0u8; 1400];
    let mut sent = 0u32;
    // More than the kernel takes: the last ones are lost, and one may be in pieces.
    for number in 0..4000u32 {
        frame[..4].copy_from_slice(&number.to_be_bytes());
        port.send(GuestSlice::from_host(&mut frame)).unwrap();
        sent += 1;
    }
    rustix::io::ioctl_fionbio(&theirs, true).unwrap();
    let peer = StreamPort::new(theirs, MAC, 1500);
    let (mut got, mut last) = (0, None);
    loop {
        while let Some(length) = peer.receive(GuestSlice::from_host(&mut frame)).unwrap() {
            assert_eq!(length, 1400);
            let number = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
            assert!(last < Some(number), "in order, none twice");
            (got, last) = (got + 1, Some(number));
        }
        // The rest of the frame in pieces goes out as soon as there is room.
        if !port.has_unsent() && !peer.has_frame() {
            break;
        }
    }
    while let Some(length) = peer.receive(GuestSlice::from_host(&mut frame)).unwrap() {
        assert_eq!(length, 1400);
        got += 1;
    }
    assert!(got > 10 && got < sent, "{got} of {sent}");
    port.send(GuestSlice::from_host(&mut [9u8; 60])).unwrap();
    assert_eq!(peer.receive(GuestSlice::from_host(&mut frame)), Ok(Some(60)));
}

#[test]
fn a_frame_that_is_too_long_for_a_stream_is_refused() {
    let (port, _theirs) = stream();
    let mut frame = vec![0u8; 65_554];
    let error = port.send(GuestSlice::from_host(&mut frame)).unwrap_err();
    assert_eq!(error.to_string(), "sending a frame: Message too long");
    port.send(GuestSlice::from_host(&mut frame[..65_553])).unwrap();
}

#[test]
fn a_stream_whose_end_is_gone_is_an_error_both_ways() {
    let (port, theirs) = stream();
    drop(theirs);
    let sent = port.send(GuestSlice::from_host(&mut [1; 60])).unwrap_err();
    let received = port.receive(GuestSlice::from_host(&mut [1; 60])).unwrap_err();
    assert_eq!([sent.kind, received.kind], [HostErrorKind::Io; 2]);
}

#[test]
fn descriptors_are_taken_as_what_they_are() {
    for (kind, streams) in
        [(SocketType::STREAM, true), (SocketType::DGRAM, false), (SocketType::SEQPACKET, false)]
    {
        let (ours, theirs) = pair(kind);
        assert!(Port::attach(&format!("@{}", ours.as_raw_fd()), Some(MAC)).is_err(), "our own");
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::empty()).unwrap();
        let spec = format!("@{}", std::os::fd::IntoRawFd::into_raw_fd(ours));
        let port = Port::attach(&spec, Some(MAC)).unwrap();
        assert_eq!(matches!(port, Port::Stream(_)), streams);
        assert_eq!(port.address(), (MAC, 1500));
        let port = port.into_box();
        assert_eq!(port.receive(GuestSlice::from_host(&mut [0; 60])), Ok(None), "does not block");
        if kind != SocketType::DGRAM {
            drop(theirs);
            assert!(port.receive(GuestSlice::from_host(&mut [0; 60])).is_err(), "its end is gone");
        }
    }
}

#[test]
fn options_of_a_user_network_become_passts() {
    let options = |spec| user::options(spec).unwrap().join(" ");
    // This machine's own services are out of reach unless somebody says otherwise.
    assert_eq!(options("user"), "--no-map-gw");
    assert_eq!(options("user,nohost"), "--no-map-gw");
    assert_eq!(options("user,host"), "");
    assert_eq!(options("user,host,address=10.0.2.15"), "--address 10.0.2.15 --netmask 24");
    assert_eq!(options("user,host,address=10.1.0.9/16"), "--address 10.1.0.9 --netmask 16");
    assert_eq!(options("user,host,gateway=10.0.2.2"), "--gateway 10.0.2.2");
    let free = |text: &str| {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        text.replace("PORT", &port.local_addr().unwrap().port().to_string())
    };
    let spec = free("user,host,tcp=0.0.0.0/PORT:80");
    assert_eq!(format!("--tcp-ports {}", &spec["user,host,tcp=".len()..]), options(&spec));
    let local = free("user,host,udp=PORT:80");
    let port = &local["user,host,udp=".len()..];
    assert_eq!(format!("--udp-ports 127.0.0.1/{port}"), options(&local));
    let without = local.replace("host,", "");
    assert!(user::options(&without).unwrap_err().to_string().contains("needs the option host"));
}

#[test]
fn a_port_that_is_taken_is_told_before_the_guest_starts() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = user::options(&format!("user,tcp=127.0.0.1/{port}:80")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("port {port} of this machine: Address already in use; choose another")
    );
}

mod namespace;
