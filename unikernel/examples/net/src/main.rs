//! A network: ping, UDP echo on port 7, HTTP on port 80. Device: `--net:service0=...`.
//!
//! | argument | meaning |
//! |---|---|
//! | `--ip=10.0.0.2/24` | own address; this one if neither it nor `--dhcp` is given |
//! | `--gw=10.0.0.1` | gateway |
//! | `--dhcp` | address and gateway by DHCP |
//! | `--limit=N` | ends with `SUCCESS` after N answers (UDP datagrams and HTTP requests) |
//! | `--no-ring` | hypercalls even where the host offers a network ring |
//! | `--raw` | no TCP/IP: answers ARP and ICMP echo for `--ip`, as fast as it can; `--limit=N` counts echo answers |
//!
//! A network that goes away is an error and ends it, status 1.
//!
//! One line that starts with `ready` is printed once it can be reached.

#![no_std]
#![no_main]

extern crate alloc;

mod device;
mod http;
mod options;
mod raw;
mod stack;

use options::Options;
use unikernel::{Net, println};

unikernel::manifest! { net "service0" }
unikernel::main!(main);

/// What is said where frames can no longer be received.
const GONE: &str = "the network is gone: the host cannot receive from it any more";

fn main() -> Result<(), &'static str> {
    let options = Options::from_command_line()?;
    let acquire = if options.ring { Net::acquire } else { Net::acquire_without_ring };
    let net = acquire("service0").map_err(|_| "no device \"service0\"")?;
    println!("service0: mtu {}, {}", net.mtu(), if net.has_ring() { "ring" } else { "hypercalls" });
    if options.raw {
        raw::run(net, &options)?;
    } else {
        stack::run(net, &options)?;
    }
    println!("SUCCESS");
    Ok(())
}
