//! Ports over real interfaces, in a network namespace that the test makes for its thread.
//!
//! Where that takes rights or programs that are not there, the test prints so.

use super::*;
use crate::wait::Epoll;
use hypervisor::host::WaitSet;
use rustix::fd::BorrowedFd;
use std::io::{self, Write};
use std::net::UdpSocket;
use std::process::Command;

/// How long to wait for a frame before it is asked for again: the first ones may be lost while an
/// interface comes up.
const ROUND: u64 = 100_000_000;
/// Far more rounds than it takes when all is well.
const ROUNDS: usize = 200;

/// Says that a test does not test anything here, past the harness, in the form that
/// `cargo xtask test` counts.
fn skip(test: &str) {
    let why = "takes root, network namespaces, TAP interfaces, ip and passt";
    let _ = writeln!(io::stdout(), "skipped: {test}: {why}");
}

/// Moves this thread to a network namespace of its own. `false`, with a word, where it may not.
#[allow(unsafe_code)]
fn own_namespace() -> bool {
    // SAFETY: only this thread's network changes, and the tests' descriptors stay as they are.
    let result = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    match result {
        Ok(()) => ip("link set lo up"),
        Err(e) => {
            println!("no network namespace: {e}");
            false
        }
    }
}

fn ip(words: &str) -> bool {
    let done = Command::new("ip").args(words.split(' ')).status().is_ok_and(|s| s.success());
    if !done {
        println!("`ip {words}` failed");
    }
    done
}

/// Calls `ask` again and again until a frame comes that `is_answer` likes.
#[allow(unsafe_code)]
fn until(port: &Port, mut ask: impl FnMut(), is_answer: impl Fn(&[u8]) -> bool) {
    // SAFETY: the port outlives the set.
    let fd = unsafe { BorrowedFd::borrow_raw(port.fd()) };
    let buffered = port.buffered().map(|buffered| (0, buffered)).into_iter().collect();
    let set = Epoll::new(&[(0, fd)], buffered).unwrap();
    let mut frame = [0; 2000];
    for _ in 0..ROUNDS {
        ask();
        while set.wait(ROUND).unwrap() != 0 {
            match receive(port, &mut frame).unwrap() {
                Some(length) if is_answer(&frame[..length]) => return,
                _ => {}
            }
        }
    }
    panic!("no answer");
}

fn receive(port: &Port, frame: &mut [u8]) -> Result<Option<usize>, HostError> {
    match port {
        Port::Frames(port) => port.receive(GuestSlice::from_host(frame)),
        Port::Stream(port) => port.receive(GuestSlice::from_host(frame)),
    }
}

fn send(port: &Port, frame: &mut [u8]) {
    match port {
        Port::Frames(port) => port.send(GuestSlice::from_host(frame)).unwrap(),
        Port::Stream(port) => port.send(GuestSlice::from_host(frame)).unwrap(),
    }
}

/// "Who has `target`? Tell `own`", RFC 826.
fn arp_request(own: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let header = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &MAC, &header, &MAC, &own, &[0; 6], &target].concat()
}

fn is_arp_reply(frame: &[u8], from: [u8; 4]) -> bool {
    frame.len() >= 42
        && frame[..6] == MAC
        && frame[12..14] == [8, 6]
        && frame[21] == 2
        && frame[28..32] == from
}

#[test]
fn a_tap_carries_frames_both_ways_until_it_vanishes() {
    let made = std::path::Path::new("/dev/net/tun").exists()
        && own_namespace()
        && ip("tuntap add redox0 mode tap");
    if !made {
        return skip("a_tap_carries_frames_both_ways_until_it_vanishes");
    }
    let down = Port::attach("redox0", Some(MAC)).err().unwrap().to_string();
    assert!(down.starts_with("Network is down"), "{down}");
    assert!(ip("addr add 10.9.0.1/24 dev redox0") && ip("link set redox0 mtu 1400 up"));
    let port = Port::attach("redox0", Some(MAC)).unwrap();
    assert_eq!(port.address(), (MAC, 1400));
    let busy = Port::attach("redox0", Some(MAC)).err().unwrap().to_string();
    assert!(busy.starts_with("Device or resource busy; end the program"), "{busy}");
    let ask = || send(&port, &mut arp_request([10, 9, 0, 2], [10, 9, 0, 1]));
    until(&port, ask, |frame| is_arp_reply(frame, [10, 9, 0, 1]));
    assert!(ip("link del redox0"));
    let gone = receive(&port, &mut [0; 60]).unwrap_err();
    assert_eq!(gone.kind, HostErrorKind::Io, "{gone}");
}

#[test]
fn a_tap_that_somebody_else_opened_keeps_its_mtu() {
    let made = std::path::Path::new("/dev/net/tun").exists()
        && own_namespace()
        && ip("tuntap add redox1 mode tap")
        && ip("link set redox1 mtu 1342 up");
    if !made {
        return skip("a_tap_that_somebody_else_opened_keeps_its_mtu");
    }
    let Port::Frames(port) = Port::attach("redox1", Some(MAC)).unwrap() else { panic!("no TAP") };
    rustix::io::fcntl_setfd(&port.fd, rustix::io::FdFlags::empty()).unwrap();
    let spec = format!("@{}", std::os::fd::IntoRawFd::into_raw_fd(port.fd));
    assert_eq!(Port::attach(&spec, Some(MAC)).unwrap().address(), (MAC, 1342));
}

#[test]
fn passt_answers_at_the_gateway_and_forwards_a_port() {
    let made = Command::new("passt").arg("--version").output().is_ok()
        && own_namespace()
        && ip("link add redox2 type dummy")
        && ip("addr add 10.8.0.1/24 dev redox2")
        && ip("link set redox2 up")
        && ip("route add default via 10.8.0.254");
    if !made {
        return skip("passt_answers_at_the_gateway_and_forwards_a_port");
    }
    let spec = "user,address=10.0.2.15/24,gateway=10.0.2.2,udp=7007:7";
    let port = Port::attach(spec, Some(MAC)).unwrap();
    let ask = || send(&port, &mut arp_request([10, 0, 2, 15], [10, 0, 2, 2]));
    until(&port, ask, |frame| is_arp_reply(frame, [10, 0, 2, 2]));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ask = || {
        client.send_to(b"over the wall", "127.0.0.1:7007").unwrap();
    };
    // IPv4, UDP, from anywhere to port 7 of the guest's address.
    until(&port, ask, |frame| {
        frame.len() > 42
            && frame[12..14] == [8, 0]
            && frame[23] == 17
            && frame[30..34] == [10, 0, 2, 15]
            && frame[36..38] == [0, 7]
            && &frame[42..] == b"over the wall"
    });
}

/// What cannot be attached is told by name, by a look as by an attempt.
#[test]
fn what_is_no_tap_of_one_queue_is_told() {
    let ready = rustix::process::geteuid().is_root()
        && own_namespace()
        && ip("tuntap add tun0 mode tun")
        && ip("tuntap add many0 mode tap multi_queue")
        && ip("tuntap add one0 mode tap")
        && ["tun0", "many0", "one0"].iter().all(|name| ip(&format!("link set {name} up")));
    if !ready {
        return skip("what_is_no_tap_of_one_queue_is_told");
    }
    let attach = |name: &str| Port::attach(name, Some(MAC)).map(drop);
    for name in ["lo", "tun0"] {
        assert!(matches!(Port::check(name), Err(NetError::NotTap(_))), "{name}");
        assert!(matches!(attach(name), Err(NetError::NotTap(_))), "{name}");
    }
    // That it has several queues shows only when it is attached.
    assert!(matches!(attach("many0"), Err(NetError::NotTap(_))));
    Port::check("one0").unwrap();
    attach("one0").unwrap();
    assert!(matches!(Port::check("none0"), Err(NetError::Missing(_))));
}
