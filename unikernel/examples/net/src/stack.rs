//! The services over smoltcp.

use crate::GONE;
use crate::device::Port;
use crate::http::Server;
use crate::options::Options;
use alloc::vec;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{dhcpv4, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};
use unikernel::{Net, clock, poll, println};

const ECHO_PORT: u16 = 7;
/// Longest wait when no timer of the stack is due.
const IDLE: core::time::Duration = core::time::Duration::from_secs(1);

struct Services<'a> {
    interface: Interface,
    sockets: SocketSet<'a>,
    echo: SocketHandle,
    dhcp: Option<SocketHandle>,
    http: Server,
}

/// Serves until the limit is reached.
///
/// # Errors
/// If the host's end of the network is gone.
pub fn run(net: Net, options: &Options) -> Result<(), &'static str> {
    let mut port = Port::new(net);
    let mut services = Services::new(&mut port, options);
    let mut answers = 0;
    while answers < options.limit || services.http.is_busy(&services.sockets) {
        services.interface.poll(now(), &mut port, &mut services.sockets);
        services.configure();
        answers += services.echo() + services.http.serve(&mut services.sockets);
        services.interface.poll(now(), &mut port, &mut services.sockets);
        if port.is_gone() {
            return Err(GONE);
        }
        services.wait();
    }
    // Last acknowledgements leave before the unikernel does.
    services.interface.poll(now(), &mut port, &mut services.sockets);
    Ok(())
}

fn now() -> Instant {
    let micros = clock::monotonic().as_micros();
    Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

impl Services<'_> {
    fn new(port: &mut Port, options: &Options) -> Self {
        let mut config = Config::new(EthernetAddress(port.mac()).into());
        // Sequence numbers and ports; the clock is all the chance that a unikernel has.
        config.random_seed = u64::from(clock::wall().subsec_nanos());
        let interface = Interface::new(config, port, now());
        let mut sockets = SocketSet::new(vec![]);
        let echo = sockets.add(echo_socket());
        let dhcp = options.dhcp.then(|| sockets.add(dhcpv4::Socket::new()));
        let http = Server::new(&mut sockets);
        let mut services = Self { interface, sockets, echo, dhcp, http };
        if !options.dhcp {
            services.set_address(options.ip, options.gateway);
        }
        services
    }

    fn set_address(&mut self, ip: Ipv4Cidr, gateway: Option<Ipv4Address>) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // The list was just emptied, so there is room.
            let _ = addresses.push(IpCidr::Ipv4(ip));
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = gateway {
            // The table was just emptied, so there is room.
            let _ = routes.add_default_ipv4_route(gateway);
        }
        println!("ready: {ip}, udp echo on port {ECHO_PORT}, http on port 80");
    }

    /// Takes over what DHCP found.
    fn configure(&mut self) {
        let Some(handle) = self.dhcp else { return };
        match self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            Some(dhcpv4::Event::Configured(found)) => {
                let (address, router) = (found.address, found.router);
                self.set_address(address, router);
            }
            Some(dhcpv4::Event::Deconfigured) => {
                self.interface.update_ip_addrs(|addresses| addresses.clear());
            }
            None => {}
        }
    }

    /// Sends datagrams back; returns how many.
    fn echo(&mut self) -> u64 {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.echo);
        let mut count = 0;
        while socket.can_recv() && socket.can_send() {
            let Ok((data, from)) = socket.recv().map(|(data, from)| (data.to_vec(), from)) else {
                break;
            };
            count += u64::from(socket.send_slice(&data, from.endpoint).is_ok());
        }
        count
    }

    /// Until a frame comes or a timer of the stack is due.
    fn wait(&mut self) {
        let delay = self.interface.poll_delay(now(), &self.sockets);
        let delay = delay.map_or(IDLE, |delay| IDLE.min(delay.into()));
        if !delay.is_zero() {
            poll::wait(delay);
        }
    }
}

fn echo_socket() -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 32], vec![0; 64 << 10]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    // Only a port of 0 or an open socket is refused.
    let _ = socket.bind(ECHO_PORT);
    socket
}
