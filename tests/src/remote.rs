//! A debugger's side of the GDB remote protocol ("Debugging with GDB", appendix E), spoken by
//! hand so that no debugger is needed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// A connection to a tender that was started with `--gdb`.
pub struct Remote(TcpStream);

/// A TCP port that was free a moment ago.
///
/// # Panics
/// If there are no sockets.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback sockets");
    listener.local_addr().expect("bound").port()
}

impl Remote {
    /// Connects as soon as there is somebody.
    ///
    /// # Panics
    /// If there is nobody in time.
    pub fn connect(port: u16) -> Self {
        let start = Instant::now();
        loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(LIMIT)).expect("a limit above zero");
                    return Self(stream);
                }
                Err(error) => assert!(start.elapsed() < LIMIT, "port {port}: {error}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a packet and gives the answer.
    ///
    /// # Panics
    /// If there is none in time, or one with a wrong checksum.
    pub fn ask(&mut self, packet: &str) -> String {
        self.tell(packet);
        self.hear()
    }

    /// Interrupts a guest that runs, and gives the answer.
    ///
    /// # Panics
    /// If there is none in time.
    pub fn interrupt(&mut self) -> String {
        self.raw(&[3]);
        self.hear()
    }

    /// Sends bytes that are no packet.
    ///
    /// # Panics
    /// If nobody is there any more.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("still connected");
    }

    /// The next packet. Requests to send one again are passed over.
    ///
    /// # Panics
    /// If there is none in time, or one with a wrong checksum.
    pub fn hear(&mut self) -> String {
        loop {
            match self.byte() {
                b'$' => break,
                b'+' | b'-' => {}
                other => panic!("{:?} instead of an answer", char::from(other)),
            }
        }
        let mut answer = String::new();
        loop {
            match self.byte() {
                b'#' => break,
                byte => answer.push(byte.into()),
            }
        }
        let sum = String::from_utf8(vec![self.byte(), self.byte()]).expect("hexadecimal");
        assert_eq!(sum, checksum(&answer), "{answer}");
        self.0.write_all(b"+").expect("still connected");
        answer
    }

    /// Sends a packet that has no answer.
    ///
    /// # Panics
    /// If nobody is there any more.
    pub fn tell(&mut self, packet: &str) {
        let framed = format!("${packet}#{}", checksum(packet));
        self.0.write_all(framed.as_bytes()).expect("still connected");
    }

    /// The general registers, as `g` has them for x86_64: 16 of 8 bytes, then RIP.
    ///
    /// # Panics
    /// If the answer is none.
    pub fn registers(&mut self) -> Vec<u64> {
        let bytes = from_hex(&self.ask("g"));
        let word = |chunk: &[u8]| u64::from_le_bytes(chunk.try_into().expect("8 bytes"));
        bytes[..17 * 8].chunks(8).map(word).collect()
    }

    /// The address of the next instruction.
    ///
    /// # Panics
    /// As [`Self::registers`].
    pub fn rip(&mut self) -> u64 {
        self.registers()[16]
    }

    /// Bytes of guest memory.
    ///
    /// # Panics
    /// If the answer is none.
    pub fn memory(&mut self, address: u64, length: usize) -> Vec<u8> {
        from_hex(&self.ask(&format!("m{address:x},{length:x}")))
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("an answer in time");
        byte[0]
    }
}

fn checksum(packet: &str) -> String {
    format!("{:02x}", packet.bytes().fold(0u8, u8::wrapping_add))
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16);
    let bytes: Result<_, _> = (0..text.len() / 2).map(|i| digits(2 * i)).collect();
    bytes.unwrap_or_else(|_| panic!("`{text}' is not hexadecimal"))
}
