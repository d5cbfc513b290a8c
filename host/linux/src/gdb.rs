//! Debuggers that come over TCP, from this machine only, or over a unix socket.
//!
//! Order: [`GdbPort::open`], [`GdbPort::accept`], both before the process confines itself; the
//! [`GdbLink`] then needs no more than [`GdbLink::rules`]. SIGIO must have been given to
//! [`signals::install`]: it says that a debugger wants something while the guest runs, and
//! interrupts the vCPU as any signal of the tender's does.
//!
//! Whoever can connect can do to the guest what its owner can. To the TCP port that is every user
//! of this machine; to the unix socket its owner alone. No more than that: the tender stays
//! confined, and the guest held. Browsers connect to the TCP port as well, for any web page: so the
//! first bytes decide, and a caller whose bytes are not the protocol's is sent away at once.

use crate::confine::Rule;
use crate::wait::OnSignal;
use crate::{signals, sys};
use hypervisor::debug::gdb::{Frame, Framer, Heard, Link};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, chmod, unlink};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_reuseaddr, set_tcp_nodelay};
use rustix::net::{
    AddressFamily, Ipv4Addr, RecvFlags, SendFlags, SocketAddrUnix, SocketAddrV4, SocketFlags,
    SocketType, accept_with, bind, connect, getsockname, listen, recv, send, socket_with,
};
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

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

/// Where a debugger can call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A TCP port of the loopback interface; 0 is any that is free.
    Port(u16),
    /// A unix socket.
    Path(OsString),
}

/// As a debugger is told it: `target remote PLACE`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "localhost:{port}"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// A place at which a debugger can call. A unix socket's file is removed with it.
pub struct GdbPort {
    listener: OwnedFd,
    place: Place,
}

impl Drop for GdbPort {
    fn drop(&mut self) {
        if let Place::Path(path) = &self.place {
            // There is nobody to tell where that fails.
            let _ = unlink(path);
        }
    }
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
    /// Opens the place.
    ///
    /// # Errors
    /// The system's; `ADDRINUSE` where somebody else has the port, or anything but a socket that
    /// nobody listens to has the path.
    pub fn open(place: &Place) -> Result<Self, Errno> {
        let family = match place {
            Place::Port(_) => AddressFamily::INET,
            Place::Path(_) => AddressFamily::UNIX,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(family, SocketType::STREAM, flags, None)?;
        let place = match place {
            Place::Port(port) => {
                set_socket_reuseaddr(&listener, true)?;
                bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, *port))?;
                Place::Port(SocketAddrV4::try_from(getsockname(&listener)?)?.port())
            }
            Place::Path(path) => {
                bind_path(&listener, Path::new(path))?;
                place.clone()
            }
        };
        let port = Self { listener, place };
        if let Place::Path(path) = &port.place {
            // Nobody can connect before it listens.
            chmod(path, Mode::RUSR | Mode::WUSR)?;
        }
        listen(&port.listener, BACKLOG)?;
        Ok(port)
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
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

/// Binds to a path. A socket there that nobody listens to was left behind, and is replaced.
fn bind_path(listener: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(path)?;
    let bound = bind(listener, &address);
    if bound != Err(Errno::ADDRINUSE) {
        return bound;
    }
    let asks = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let there = rustix::fs::lstat(path)?;
    let is_socket = rustix::fs::FileType::from_raw_mode(there.st_mode).is_socket();
    if !is_socket || connect(&asks, &address) != Err(Errno::CONNREFUSED) {
        return Err(Errno::ADDRINUSE);
    }
    unlink(path)?;
    bind(listener, &address)
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
        for &byte in &chunk[..count] {
            match self.framer.push(byte) {
                None | Some(Frame::Interrupt) => {}
                Some(Frame::Packet(_)) => return Judged::Debugger,
                Some(Frame::Broken | Frame::Stray) => return Judged::Stranger,
            }
        }
        if self.heard.len() < CHUNK { Judged::Unknown } else { Judged::Stranger }
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
        // A unix socket has no such option, and sends at once.
        match set_tcp_nodelay(&stream, true) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
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
        open_at(&Place::Port(0))
    }

    fn open_at(place: &Place) -> GdbPort {
        // SAFETY: ignoring a signal involves no memory. Its default would end the tests.
        unsafe { libc::signal(SIGNAL, libc::SIG_IGN) };
        GdbPort::open(place).unwrap()
    }

    fn number(port: &GdbPort) -> u16 {
        match port.place() {
            Place::Port(port) => *port,
            Place::Path(_) => panic!("it is a port"),
        }
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
        let number = number(&port);
        let _silent = call(number, b"");
        drop(call(number, b"hung up"));
        let mut junk = call(number, &[b'x'; 2 * CHUNK]);
        let mut wrong = call(number, b"$?#00GET / HTTP/1.1\r\n");
        let mut page = call(number, b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n$g#67");
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
        for stranger in [&mut junk, &mut wrong, &mut page] {
            assert!(!matches!(stranger.read(&mut [0]), Ok(1..)), "sent away");
        }
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, number)).is_err(), "the port is closed");
    }

    #[test]
    fn many_strangers_keep_nobody_out() {
        let port = open();
        let number = number(&port);
        let _strangers: Vec<_> = (0..CALLERS + 4).map(|_| call(number, b"")).collect();
        let _gdb = call(number, b"$?#3f");
        let mut link = port.accept(&Never).unwrap().unwrap();
        assert_eq!(hear(&mut link, 5), b"$?#3f");
    }

    #[test]
    fn a_unix_socket_is_its_owners_and_goes_with_the_port() {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::net::{UnixListener, UnixStream};
        let path = std::env::temp_dir().join(format!("gdb-{}", std::process::id()));
        let place = Place::Path(path.clone().into());
        // One that was left behind is no obstacle; one that is listened to is, and so is a file.
        drop(UnixListener::bind(&path).unwrap());
        let port = open_at(&place);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(GdbPort::open(&place).err(), Some(Errno::ADDRINUSE));
        let mut gdb = UnixStream::connect(&path).unwrap();
        gdb.write_all(b"+$?#3f").unwrap();
        let mut link = port.accept(&Never).unwrap().unwrap();
        assert_eq!(hear(&mut link, 6), b"+$?#3f");
        assert!(!path.exists());
        std::fs::write(&path, "file").unwrap();
        assert_eq!(GdbPort::open(&place).err(), Some(Errno::ADDRINUSE));
        assert_eq!(std::fs::read(&path).unwrap(), b"file");
        std::fs::remove_file(&path).unwrap();
    }
}
