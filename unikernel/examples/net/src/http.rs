//! A small HTTP/1.1 server: one answer for each connection, whatever the path.

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;

/// Connections at a time.
const SOCKETS: usize = 8;
const PORT: u16 = 80;
const END_OF_HEADER: &[u8] = b"\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 24\r\n\
    Connection: close\r\n\
    \r\n\
    Hello from a unikernel.\n";
/// A longer header gets no answer.
const HEADER_MAX: usize = 4096;

/// The listening and the connected sockets.
pub struct Server([SocketHandle; SOCKETS]);

impl Server {
    /// Adds its sockets to the set.
    pub fn new(sockets: &mut SocketSet<'_>) -> Self {
        Self(core::array::from_fn(|_| sockets.add(socket())))
    }

    /// Serves what is there; returns the number of requests that were answered.
    pub fn serve(&mut self, sockets: &mut SocketSet<'_>) -> u64 {
        self.0.iter().map(|&handle| u64::from(step(sockets.get_mut(handle)))).sum()
    }

    /// Whether any answer is still on its way.
    pub fn is_busy(&self, sockets: &SocketSet<'_>) -> bool {
        self.0.iter().any(|&handle| {
            let socket: &tcp::Socket<'_> = sockets.get(handle);
            socket.is_active() && socket.state() != tcp::State::TimeWait
        })
    }
}

fn socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(alloc::vec![0; HEADER_MAX]);
    tcp::Socket::new(buffer(), buffer())
}

/// One socket's next move; true if it answered a request.
fn step(socket: &mut tcp::Socket<'_>) -> bool {
    if !socket.is_open() {
        // Only a port of 0 or an open socket is refused.
        let _ = socket.listen(PORT);
        return false;
    }
    if socket.may_recv() && socket.recv_queue() == HEADER_MAX {
        socket.abort();
        return false;
    }
    let whole = socket.peek(HEADER_MAX).is_ok_and(|text| contains(text, END_OF_HEADER));
    if whole && socket.can_send() {
        let read = socket.recv_queue();
        let _ = socket.recv(|text| (text.len().min(read), ()));
        let _ = socket.send_slice(ANSWER);
        socket.close();
        return true;
    }
    if socket.state() == tcp::State::CloseWait {
        socket.close();
    }
    false
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
