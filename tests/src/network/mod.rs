//! Networks for a guest: TAP interfaces in a namespace of the test's own, and what is sent there.

mod interface;
mod ping;
mod tap;
mod wire;

pub use interface::Interface;
pub use ping::{Pinger, Pings};
pub use tap::Tap;
pub use wire::{MAC_OF_TEST, Wire};

use std::io;
use std::mem::size_of;

/// `struct ifreq` (netdevice(7)).
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: [u8; 24],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

impl Request {
    fn new(name: &str) -> Self {
        let mut request = Self { name: [0; libc::IFNAMSIZ], data: [0; 24] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        request
    }

    fn with(mut self, data: &[u8]) -> Self {
        self.data[..data.len()].copy_from_slice(data);
        self
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
