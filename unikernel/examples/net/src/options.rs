//! The command line.

use smoltcp::wire::{Ipv4Address, Ipv4Cidr};
use unikernel::args;

/// What the command line asks for.
pub struct Options {
    /// Own address and network.
    pub ip: Ipv4Cidr,
    /// Gateway.
    pub gateway: Option<Ipv4Address>,
    /// Ask a DHCP server for both.
    pub dhcp: bool,
    /// End after this many answers.
    pub limit: u64,
    /// Without a TCP/IP stack.
    pub raw: bool,
    /// Use the network ring if there is one.
    pub ring: bool,
}

impl Options {
    /// Reads it; an unknown word is an error.
    pub fn from_command_line() -> Result<Self, &'static str> {
        let mut options = Self {
            ip: Ipv4Cidr::new(Ipv4Address::new(10, 0, 0, 2), 24),
            gateway: None,
            dhcp: false,
            limit: u64::MAX,
            raw: false,
            ring: true,
        };
        args().try_for_each(|word| options.word(word))?;
        Ok(options)
    }

    fn word(&mut self, word: &str) -> Result<(), &'static str> {
        match word.split_once('=') {
            Some(("--ip", value)) => {
                self.ip = value.parse().map_err(|()| "--ip wants A.B.C.D/N")?
            }
            Some(("--gw", value)) => {
                self.gateway = Some(value.parse().map_err(|_| "--gw wants A.B.C.D")?);
            }
            Some(("--limit", value)) => {
                self.limit = value.parse().map_err(|_| "--limit wants a number")?;
            }
            None if word == "--dhcp" => self.dhcp = true,
            None if word == "--raw" => self.raw = true,
            None if word == "--no-ring" => self.ring = false,
            _ => {
                return Err("unknown argument: use --ip= --gw= --dhcp --limit= --raw --no-ring");
            }
        }
        Ok(())
    }
}
