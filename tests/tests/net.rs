//! Networks of a guest: by interface name, by descriptor, with the ring and without.
//!
//! What needs an interface runs in a network namespace of its own and takes root; what does not
//! runs over a pair of sockets.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::Duration;
use system_tests::elf::Elf;
use system_tests::environment::{is_root, skip};
use system_tests::namespace::with_network;
use system_tests::network::{Pinger, Pings, Tap, Wire};
use system_tests::{Running, Scratch, Tender, limits, unikernel};

const IP: [u8; 4] = [10, 0, 0, 2];
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Both ways to serve a network, and what the guest says of each.
const RINGS: [(&str, &str); 2] = [("--no-net-ring", "hypercalls"), ("--net-ring", "ring")];

/// The ping responder, with a guest's end of a wire.
fn over(wire: &Wire) -> Tender {
    Tender::new("net").net_fd("service0", wire.theirs()).args(["--raw"])
}

/// Runs `work` with a TAP interface `tap0` of 10.0.0.1/24; says so where there can be none.
fn with_tap(test: &str, mtu: i32, work: impl FnOnce(Tap) + Send) {
    if !is_root() {
        return skip(test, "a TAP interface takes root");
    }
    let made = with_network(|| Tap::new("tap0", HOST, mtu).map(work));
    match made.and_then(|made| made) {
        Ok(()) => {}
        Err(error) => skip(test, &format!("no TAP interface here: {error}")),
    }
}

#[test]
fn echo_over_a_descriptor_with_the_ring_and_without() {
    for (option, word) in RINGS {
        let wire = Wire::new().unwrap();
        let mut running = over(&wire).option(option).args(["--limit=300"]).spawn();
        let ready = running.expect("ready");
        assert!(ready.contains(&format!("service0: mtu 1500, {word}\n")), "{ready}");
        let mac = wire.resolve(IP);
        assert_eq!(mac[0] & 3, 2, "locally administered, for one station: {mac:x?}");
        for size in 0..300usize {
            wire.ping(mac, IP, &vec![size.to_le_bytes()[0]; size * 1472 / 299]);
        }
        running.finish().assert_success();
    }
}

/// A guest with a smaller ring of its own choice: what the guest does not accept is not used.
#[test]
fn a_guest_may_leave_the_ring_alone() {
    let wire = Wire::new().unwrap();
    let mut running = over(&wire).option("--net-ring").args(["--no-ring", "--limit=10"]).spawn();
    running.expect("service0: mtu 1500, hypercalls\n");
    running.expect("ready");
    let mac = wire.resolve(IP);
    for _ in 0..10 {
        wire.ping(mac, IP, b"hello");
    }
    running.finish().assert_success();
}

#[test]
fn the_hardware_address_is_the_one_asked_for() {
    let wire = Wire::new().unwrap();
    let mut running = over(&wire).option("--net-mac:service0=02:0:aB:00:12:fe").spawn();
    running.expect("ready");
    assert_eq!(wire.resolve(IP), [2, 0, 0xab, 0, 0x12, 0xfe]);
    let (first, second) = (Wire::new().unwrap(), Wire::new().unwrap());
    let mut others = [over(&first).spawn(), over(&second).spawn()];
    others.iter_mut().for_each(|other| drop(other.expect("ready")));
    assert_ne!(first.resolve(IP), second.resolve(IP), "each made up one of its own");
}

/// Frames of every length, most of them nonsense, trouble neither guest nor tender.
#[test]
fn nonsense_is_dropped() {
    for (option, _) in RINGS {
        let wire = Wire::new().unwrap();
        let mut running = over(&wire).option(option).args(["--limit=1"]).spawn();
        running.expect("ready");
        for length in (1..64).chain([1514, 1515, 1518, 1600, 9000, 60_000]) {
            wire.send(&vec![0x08; length]).unwrap();
        }
        let mac = wire.resolve(IP);
        wire.ping(mac, IP, b"still there");
        running.finish().assert_success();
    }
}

/// The other end is gone, which a socket tells only who sends: the guest waits for a frame that
/// does not come, and obeys a signal.
#[test]
fn a_wire_that_is_cut() {
    for (option, _) in RINGS {
        let mut wire = Wire::new().unwrap();
        let mut running = over(&wire).option(option).spawn();
        running.expect("ready");
        wire.close_theirs();
        drop(wire);
        ends_or_goes_on(running);
    }
}

fn ends_or_goes_on(mut running: Running) {
    std::thread::sleep(Duration::from_millis(300));
    if running.ended().is_none() {
        running.signal(libc::SIGTERM);
        running.finish().assert_ends(1, "Exiting on signal 15");
    } else {
        let run = running.finish();
        assert!(run.status == Some(1) && run.stderr.lines().count() == 1, "{run:#?}");
    }
}

#[test]
fn what_cannot_be_attached_is_named() {
    for (spec, text) in [
        ("absent0", "Could not attach interface: absent0: "),
        ("@999", "Could not attach interface: @999: `999' is not the number of an open descriptor"),
        ("@1", "Could not attach interface: @1: "),
        ("@x", "Could not attach interface: @x: `x' is not the number of an open descriptor"),
        ("user,what=1", "`what=1' is not an option of a user-mode network"),
        ("a-name-that-is-too-long-for-linux", "Could not attach interface: "),
    ] {
        let run = Tender::new("net").net("service0", spec).run();
        run.assert_ends(1, text);
        assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
    }
}

/// The tender has opened its own there meanwhile.
#[test]
fn a_descriptor_that_was_not_given_is_not_taken() {
    for fd in [3, 4] {
        let tender = Tender::new("net").net("service0", &format!("@{fd}"));
        let run = tender.option("--gdb").option("--gdb-port=0");
        let run = run.prepare(move |command| limits::keep_back(command, fd)).run();
        run.assert_ends(1, &format!("@{fd}: `{fd}' is not the number of an open descriptor"));
    }
}

#[test]
fn an_interface_by_name() {
    with_tap("an_interface_by_name", 1500, |tap| {
        tap.release().unwrap();
        for (option, word) in RINGS {
            let tender = Tender::new("net").net("service0", "tap0").option(option);
            let mut running = tender.args(["--raw", "--limit=2000"]).spawn();
            running.expect(&format!("service0: mtu 1500, {word}\n"));
            running.expect("ready");
            flood(2000, 56);
            running.finish().assert_success();
        }
    });
}

/// Nothing may be lost: the window is smaller than any queue on the way.
fn flood(count: u16, size: usize) {
    let window = if size < 1500 { 16 } else { 2 };
    let pings = Pinger::new(GUEST).unwrap().ping(count, size, window);
    assert_eq!(pings, Pings { good: count, lost: 0, bad: 0 });
}

#[test]
fn an_inherited_tap_has_its_mtu() {
    with_tap("an_inherited_tap_has_its_mtu", 9000, |tap| {
        let tender = Tender::new("net").net_fd("service0", &tap.file);
        let mut running = tender.args(["--raw", "--limit=200"]).spawn();
        running.expect("service0: mtu 9000, ");
        running.expect("ready");
        flood(200, 8972);
        running.finish().assert_success();
    });
}

#[test]
fn an_interface_that_is_down_or_in_use() {
    with_tap("an_interface_that_is_down_or_in_use", 1500, |_tap| {
        let run = Tender::new("net").net("service0", "tap0").run();
        run.assert_ends(1, "Could not attach interface: tap0: ");
        let run = Tender::new("net").net("service0", "lo").run();
        run.assert_ends(1, "Network is down; bring it up with `ip link set lo up`");
    });
}

/// A guest with two networks that uses the second; frames wait on the first.
#[test]
fn two_interfaces() {
    with_tap("two_interfaces", 1500, |tap| {
        let scratch = Scratch::new();
        let mut elf = Elf::read(&unikernel("net"));
        elf.declare(&[("service1", 2), ("service0", 2)]);
        let kernel = scratch.file("two.hvt", &elf.bytes);
        let wire = Wire::new().unwrap();
        let tender = Tender::of(&kernel).net_fd("service0", &tap.file);
        let mut running =
            tender.net_fd("service1", wire.theirs()).args(["--raw", "--limit=500"]).spawn();
        running.expect("ready");
        for _ in 0..100 {
            wire.send(&[0xff; 60]).unwrap();
        }
        flood(500, 56);
        running.finish().assert_success();
        let one = Tender::of(&kernel).net_fd("service0", wire.theirs()).run();
        one.assert_ends(1, "All declared devices must be attached");
        assert!(one.stderr.contains("service1"), "{one:#?}");
    });
}

#[test]
fn udp_and_http() {
    with_tap("udp_and_http", 1500, |tap| {
        let tap = tap.file;
        for (option, word) in RINGS {
            // The same for both, as the kernel remembers it.
            let options = [option, "--net-mac:service0=02:00:00:00:00:02"];
            let tender = Tender::new("net").net_fd("service0", &tap).options(options);
            let mut running = tender.args(["--limit=70"]).spawn();
            running.expect(&format!("mtu 1500, {word}\n"));
            running.expect("ready");
            udp_echo(50).unwrap();
            for _ in 0..20 {
                http((GUEST, 80)).unwrap();
            }
            running.finish().assert_success();
        }
    });
}

fn udp_echo(count: usize) -> io::Result<()> {
    let socket = UdpSocket::bind((HOST, 0))?;
    socket.connect((GUEST, 7))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut answer = [0; 2000];
    for number in 1..=count {
        let data: Vec<u8> = (0..number * 29).map(|i| (i * number).to_le_bytes()[0]).collect();
        socket.send(&data)?;
        let length = socket.recv(&mut answer)?;
        assert_eq!(answer[..length], data);
    }
    Ok(())
}

/// One request; the answer is the guest's page.
fn http(to: (Ipv4Addr, u16)) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to.into(), Duration::from_secs(20))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200 OK\r\n") || !answer.contains("Hello from a unikernel.\n") {
        return Err(io::Error::other(answer));
    }
    Ok(())
}

/// The guest's next read is an error to it, with the ring and without, with a stack and without.
#[test]
fn a_tap_that_is_removed() {
    for (option, _) in RINGS {
        for words in [&["--raw"][..], &[]] {
            with_tap("a_tap_that_is_removed", 1500, |tap| {
                let tender = Tender::new("net").net_fd("service0", &tap.file).option(option);
                let mut running = tender.args(words).spawn();
                running.expect("ready");
                flood(10, 56);
                tap.interface.remove().unwrap();
                drop(tap.file);
                let run = running.finish();
                run.assert_ends(1, "error: the network is gone");
                // The person who runs it hears of each kind of failure once.
                assert!(run.stderr.contains("network @"), "{run:#?}");
                let kinds: BTreeSet<_> = run.stderr.lines().collect();
                assert_eq!(kinds.len(), run.stderr.lines().count(), "{run:#?}");
            });
        }
    }
}
