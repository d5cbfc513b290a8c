//! A network without root, through passt: an address by DHCP, ports that are forwarded.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};
use system_tests::environment::{on_path, skip};
use system_tests::{Running, Tender};

const LIMIT: Duration = Duration::from_secs(20);

/// Says so where there is no passt, or no network that it could lend: it takes over the addresses
/// of an interface with a default route.
fn can_run(test: &str) -> bool {
    if on_path("passt").is_none() {
        skip(test, "passt is not installed");
        return false;
    }
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let has_default = routes.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    if !has_default {
        skip(test, "this machine has no network that passt could lend");
    }
    has_default
}

/// Ports that were free a moment ago, of TCP and of UDP.
fn free_ports() -> (u16, u16) {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port())
}

fn guest(spec: &str, limit: u32) -> Running {
    let tender = Tender::new("net").net("service0", spec);
    let mut running = tender.args(["--dhcp", &format!("--limit={limit}")]).spawn();
    let ready = running.expect("ready: ");
    assert!(!ready.contains("ready: 10.0.0.2/"), "the address is passt's: {ready}");
    running
}

/// passt listens before the guest does, so the first connections may find nobody.
fn http(port: u16) -> String {
    let start = Instant::now();
    loop {
        let answer = try_http(port).unwrap_or_default();
        if !answer.is_empty() || start.elapsed() > LIMIT {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn try_http(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn forwarded_ports() {
    if !can_run("forwarded_ports") {
        return;
    }
    let (tcp, udp) = free_ports();
    let running = guest(&format!("user,host,tcp={tcp}:80,udp={udp}:7"), 15);
    let group = running.pid();
    for _ in 0..10 {
        let answer = http(tcp);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, udp)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    for number in 0..5u8 {
        socket.send(&[number; 700]).unwrap();
        let mut answer = [0; 2000];
        let length = socket.recv(&mut answer).unwrap();
        assert_eq!(answer[..length], [number; 700]);
    }
    running.finish().assert_success();
    nobody_left(group);
}

#[test]
fn passt_ends_with_a_killed_tender() {
    if !can_run("passt_ends_with_a_killed_tender") {
        return;
    }
    let mut running = guest("user", 1);
    let group = running.pid();
    running.signal(libc::SIGKILL);
    running.finish();
    nobody_left(group);
}

fn nobody_left(group: u32) {
    let start = Instant::now();
    while !system_tests::processes::alive_in_group(group).is_empty() {
        assert!(start.elapsed() < LIMIT, "something of process group {group} is still alive");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    if on_path("passt").is_none() {
        return skip("a_port_that_is_taken_is_named", "passt is not installed");
    }
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let run = Tender::new("net").net("service0", &format!("user,tcp={port}:80")).run();
    run.assert_ends(1, "Could not attach interface: user");
    assert!(run.stderr.contains(&port.to_string()), "{run:#?}");
}

#[test]
fn without_passt_the_error_says_what_to_install() {
    let tender = Tender::new("net").net("service0", "user");
    let no_path = |command: &mut Command| {
        command.env("PATH", "/nonexistent");
    };
    let run = tender.prepare(no_path).run();
    run.assert_ends(1, "needs the program passt; install the package passt\n");
}
