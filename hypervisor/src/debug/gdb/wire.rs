//! The way from gdbstub to a [`Link`]: whole answers, not single bytes.

use super::{Link, frame};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt::Write as _;
use gdbstub::conn::Connection;

/// Bytes that are collected before some are sent.
const CHUNK: usize = 4096;

/// A link, and what has not been sent yet.
pub struct Line<'a, L> {
    pub link: &'a mut L,
    out: Vec<u8>,
}

impl<'a, L: Link> Line<'a, L> {
    pub fn new(link: &'a mut L) -> Self {
        Self { link, out: Vec::with_capacity(CHUNK) }
    }

    fn flush(&mut self) -> Result<(), Gone> {
        let sent = self.out.is_empty() || self.link.send(&self.out);
        self.out.clear();
        if sent { Ok(()) } else { Err(Gone) }
    }

    fn collect(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.out.extend_from_slice(bytes);
        if self.out.len() < CHUNK { Ok(()) } else { self.flush() }
    }

    /// Asks for a packet again.
    pub fn refuse_frame(&mut self) {
        self.link.send(b"-");
    }

    /// Answers a command that gdbstub could not read, instead of what it has begun to answer.
    pub fn refuse_command(&mut self) {
        self.out.clear();
        self.packet("E01");
    }

    /// Answers a command to kill, which gdbstub leaves open: `vKill` wants it, `k` lets it be.
    pub fn agree_to_kill(&mut self) {
        self.out.clear();
        self.link.send(b"+$OK#9a");
    }

    /// Lets the debugger show a line. Only while the guest runs.
    pub fn tell(&mut self, text: &str) {
        let mut hex = String::from("O");
        for byte in text.bytes().chain([b'\n']) {
            let _ = write!(hex, "{byte:02x}");
        }
        self.packet(&hex);
    }

    fn packet(&mut self, body: &str) {
        self.link.send(format!("${body}#{:02x}", frame::sum(body.as_bytes())).as_bytes());
    }
}

/// The connection has ended.
#[derive(Debug)]
pub struct Gone;

/// A line that gdbstub and the session share.
pub struct Wire<'a, 'l, L>(pub &'a RefCell<Line<'l, L>>);

impl<L: Link> Connection for Wire<'_, '_, L> {
    type Error = Gone;

    fn write(&mut self, byte: u8) -> Result<(), Gone> {
        self.0.borrow_mut().collect(&[byte])
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.0.borrow_mut().collect(bytes)
    }

    fn flush(&mut self) -> Result<(), Gone> {
        self.0.borrow_mut().flush()
    }
}
