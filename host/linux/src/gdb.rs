//! Debuggers that come over TCP, from this machine only.
//!
//! Order: [`GdbPort::open`], [`GdbPort::accept`], both before the process confines itself; the
//! [`GdbLink`] then needs no more than [`GdbLink::rules`]. SIGIO must have been given to
//! [`signals::install`]: it says that a debugger wants something while the guest runs, and
//! interrupts the vCPU as any signal of the tender's does.
//!
//! Whoever can connect to the port can do to the guest what its owner can: other users of this
//! machine too. No more than that: the tender stays confined, and the guest held.

use crate::confine::Rule;
use crate::wait::OnSignal;
use crate::{signals, sys};
use hypervisor::debug::gdb::{Frame, Framer, Heard, Link};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{
    AddressFamily, Ipv4Addr, RecvFlags, SendFlags, SocketAddrV4, SocketFlags, SocketType,
    accept_with, bind, getsockname, listen, recv, send, socket_with,
};

/// The signal that announces a debugger's words.
pub const SIGNAL: i32 = libc::SIGIO;

/// A wait looks at least so often whether a signal has come: where signals cannot be blocked, one
/// may come just before the wait. In milliseconds.
const LOOK_AGAIN: i64 = 100;
/// Connections of which none has said anything sensible yet.
const CALLERS: usize = 8;
/// Connections that the kernel holds back.
const BACKLOG: i32 = 16;
/// Bytes that are read at once, and that a caller has to say something sensible.
const CHUNK: usize = 4096;

/// A port at which a debugger can call.
pub struct GdbPort {
    listener: OwnedFd,
    port: u16,
}

/// Somebody who has connected, and may be anybody.
struct Caller {
    stream: OwnedFd,
    heard: Vec<u8>,
    framer: Framer,
}

/// What a caller is found to be.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    Unknown,
    Debugger,
    Stranger,
}

impl GdbPort {
    /// Opens this port of the loopback interface; 0 is any that is free.
    ///
    /// # Errors
    /// The system's.
    pub fn open(port: u16) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        set_socket_reuseaddr(&listener, true)?;
        bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        listen(&listener, BACKLOG)?;
        let port = SocketAddrV4::try_from(getsockname(&listener)?)?.port();
        Ok(Self { listener, port })
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.port
    }

    /// Waits for the first caller that speaks the protocol, and closes the port. Others are let
    /// wait or sent away. `None` if a signal ends the wait.
    ///
    /// # Errors
    /// The system's.
    pub fn accept(self, on_signal: &dyn OnSignal) -> Result<Option<GdbLink>, Errno> {
        let mut callers: Vec<Caller> = Vec::new();
        loop {
            if signals::pending() && on_signal.ends_wait() {
                return Ok(None);
            }
            self.wait(&callers)?;
            while let Some(caller) = self.next_caller()? {
                if callers.len() == CALLERS {
                    callers.remove(0);
                }
                callers.push(caller);
            }
            let mut unknown = Vec::new();
            for mut caller in callers {
                match caller.judge() {
                    Judged::Debugger => {
                        return GdbLink::new(caller.stream, caller.heard).map(Some);
                    }
                    Judged::Unknown => unknown.push(caller),
                    Judged::Stranger => {}
                }
            }
            callers = unknown;
        }
    }

    fn wait(&self, callers: &[Caller]) -> Result<(), Errno> {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(callers.iter().map(|caller| PollFd::new(&caller.stream, PollFlags::IN)));
        match sys::ppoll(&mut fds, LOOK_AGAIN) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e),
        }
    }

    fn next_caller(&self) -> Result<Option<Caller>, Errno> {
        match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(stream) => Ok(Some(Caller { stream, heard: Vec::new(), framer: Framer::new() })),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Caller {
    fn judge(&mut self) -> Judged {
        let mut chunk = [0; CHUNK];
        let count = match recv(&self.stream, &mut chunk[..], RecvFlags::empty()) {
            Ok((_, count)) if count > 0 => count,
            Err(Errno::AGAIN | Errno::INTR) => return Judged::Unknown,
            _ => return Judged::Stranger,
        };
        self.heard.extend_from_slice(&chunk[..count]);
        let mut packet = false;
        for &byte in &chunk[..count] {
            packet |= matches!(self.framer.push(byte), Some(Frame::Packet(_)));
        }
        match packet {
            true => Judged::Debugger,
            false if self.heard.len() < CHUNK => Judged::Unknown,
            false => Judged::Stranger,
        }
    }
}

/// A connection to a debugger.
pub struct GdbLink {
    stream: OwnedFd,
    heard: Vec<u8>,
    at: usize,
}

impl GdbLink {
    fn new(stream: OwnedFd, heard: Vec<u8>) -> Result<Self, Errno> {
        set_tcp_nodelay(&stream, true)?;
        sys::announce_input(stream.as_fd())?;
        Ok(Self { stream, heard, at: 0 })
    }

    /// The system calls that it takes.
    pub fn rules(&self) -> Vec<Rule> {
        let fd = self.stream.as_raw_fd();
        vec![
            Rule::on_fd(libc::SYS_recvfrom, fd, "what the debugger says"),
            Rule::on_fd(libc::SYS_sendto, fd, "answers to the debugger"),
            Rule::any(libc::SYS_ppoll, "wait for the debugger"),
        ]
    }

    /// Closes it, with no other system call than that.
    pub fn close(self) {
        sys::close(self.stream);
    }

    /// Reads what there is; nothing is `AGAIN`.
    fn receive(&mut self) -> Result<(), Errno> {
        let mut chunk = [0; CHUNK];
        let (_, count) = recv(&self.stream, &mut chunk[..], RecvFlags::empty())?;
        self.heard = chunk[..count].to_vec();
        self.at = 0;
        Ok(())
    }

    fn wait(&self, what: PollFlags) {
        // Whatever it says, the next look at the connection and at the signals tells.
        let _ = sys::ppoll(&mut [PollFd::new(&self.stream, what)], LOOK_AGAIN);
    }
}

impl Link for GdbLink {
    fn next(&mut self, wait: bool) -> Heard {
        loop {
            if signals::pending() {
                return Heard::Interrupted;
            }
            if let Some(&byte) = self.heard.get(self.at) {
                self.at += 1;
                return Heard::Byte(byte);
            }
            match self.receive() {
                Ok(()) if self.heard.is_empty() => return Heard::Gone,
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if wait => self.wait(PollFlags::IN),
                Err(Errno::AGAIN) => return Heard::Nothing,
                Err(_) => return Heard::Gone,
            }
        }
    }

    /// Gives up when a signal of the tender's comes while the debugger does not listen.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            match send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if signals::pending_besides(SIGNAL) => return false,
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT),
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};

    fn open() -> GdbPort {
        // SAFETY: ignoring a signal involves no memory. Its default would end the tests.
        unsafe { libc::signal(SIGNAL, libc::SIG_IGN) };
        GdbPort::open(0).unwrap()
    }

    /// Other tests of this process send signals.
    fn next(link: &mut GdbLink, wait: bool) -> Heard {
        loop {
            match link.next(wait) {
                Heard::Interrupted => std::thread::yield_now(),
                heard => return heard,
            }
        }
    }

    struct Never;

    impl OnSignal for Never {
        fn ends_wait(&self) -> bool {
            false
        }
    }

    fn call(port: u16, says: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(says).unwrap();
        stream
    }

    fn hear(link: &mut GdbLink, count: usize) -> Vec<u8> {
        let byte = |_| match next(link, true) {
            Heard::Byte(byte) => byte,
            other => panic!("{other:?}"),
        };
        (0..count).map(byte).collect()
    }

    #[test]
    fn only_a_debugger_is_let_in() {
        let port = open();
        let number = port.number();
        let _silent = call(number, b"");
        drop(call(number, b"hung up"));
        let mut junk = call(number, &[b'x'; 2 * CHUNK]);
        let _wrong = call(number, b"$?#00GET / HTTP/1.1\r\n");
        let mut gdb = call(number, b"++$qSupported#37");
        let mut link = port.accept(&Never).unwrap().unwrap();
        assert_eq!(hear(&mut link, 16), b"++$qSupported#37");
        assert_eq!(next(&mut link, false), Heard::Nothing);
        gdb.write_all(b"+").unwrap();
        assert_eq!(hear(&mut link, 1), b"+");
        assert!(link.send(b"$#00"));
        let mut answer = [0; 4];
        gdb.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"$#00");
        gdb.shutdown(Shutdown::Write).unwrap();
        assert_eq!(next(&mut link, true), Heard::Gone);
        assert!(!matches!(junk.read(&mut [0]), Ok(1..)), "sent away");
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, number)).is_err(), "the port is closed");
    }

    #[test]
    fn many_strangers_keep_nobody_out() {
        let port = open();
        let number = port.number();
        let _strangers: Vec<_> = (0..CALLERS + 4).map(|_| call(number, b"")).collect();
        let _gdb = call(number, b"$?#3f");
        let mut link = port.accept(&Never).unwrap().unwrap();
        assert_eq!(hear(&mut link, 5), b"$?#3f");
    }
}
