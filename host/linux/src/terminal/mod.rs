//! The terminal as a guest's console: raw while the guest has it, and keys to get away.
//!
//! Keys at a terminal, as QEMU has them: Ctrl-A x leaves, Ctrl-A Ctrl-A (or Ctrl-A a) types a
//! Ctrl-A, Ctrl-A h tells this. Everything else, Ctrl-C too, goes to the guest. Where standard
//! input is not a terminal, every byte does.

mod keeper;

use crate::confine::Rule;
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::stdio::{stderr, stdin};
use rustix::termios::{OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcsetattr};

use keeper::Keeper;

const PREFIX: u8 = 0x01;

/// What a byte that was typed means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typed {
    /// This byte is for the guest.
    Byte(u8),
    /// Nothing yet.
    Nothing,
    /// Leave the guest.
    Leave,
    /// Tell the keys.
    Help,
}

/// Finds the keys in what is typed.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    terminal: bool,
    prefixed: bool,
}

impl Keys {
    /// With keys if standard input is a terminal.
    pub fn of_stdin() -> Self {
        Self { terminal: isatty(stdin()), prefixed: false }
    }

    /// With keys.
    pub fn of_terminal() -> Self {
        Self { terminal: true, prefixed: false }
    }

    /// The next byte.
    pub fn typed(&mut self, byte: u8) -> Typed {
        let prefixed = std::mem::take(&mut self.prefixed);
        match byte {
            _ if !self.terminal => Typed::Byte(byte),
            PREFIX | b'a' if prefixed => Typed::Byte(PREFIX),
            b'x' if prefixed => Typed::Leave,
            b'h' | b'?' if prefixed => Typed::Help,
            PREFIX => {
                self.prefixed = true;
                Typed::Nothing
            }
            _ => Typed::Byte(byte),
        }
    }

    /// Tells the keys on standard error.
    pub fn help() {
        let text = "\r\nCtrl-A x  leave and end the guest\r\nCtrl-A Ctrl-A  type a Ctrl-A\r\n\
                    Ctrl-A h  this help\r\n";
        let _ = rustix::io::write(stderr(), text.as_bytes());
    }
}

/// A terminal in raw mode; as it was again when this is dropped, or when the process ends in any
/// other way.
pub struct RawTerminal {
    before: Termios,
    raw: Termios,
    keeper: Option<Keeper>,
}

impl RawTerminal {
    /// Makes standard input raw, if it is a terminal. Before there is a second thread.
    ///
    /// # Errors
    /// The system's.
    pub fn stdin() -> Result<Option<Self>, Errno> {
        if !isatty(stdin()) {
            return Ok(None);
        }
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // Our own messages end their lines as always; a guest's carriage return more does no harm.
        raw.output_modes |= before.output_modes & (OutputModes::OPOST | OutputModes::ONLCR);
        let keeper = Keeper::start(&before).ok();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self { before, raw, keeper }))
    }

    /// The system calls that the other methods and the end take.
    pub fn rules(&self) -> Vec<Rule> {
        const SET_NOW: [u64; 2] = [0x5402, 0x402c_542b];
        let why = "put the terminal back";
        let fd = u64::try_from(stdin().as_raw_fd()).unwrap_or(0);
        let set = SET_NOW.map(|call| Rule::with(libc::SYS_ioctl, 1, call, why).and(0, fd));
        set.into_iter().chain(self.keeper.as_ref().map(Keeper::rule)).collect()
    }

    /// As it was, for a while: the process is about to be stopped.
    pub fn suspend(&self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }

    /// Raw again.
    pub fn resume(&self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.raw);
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.suspend();
        if let Some(keeper) = self.keeper.take() {
            keeper.dismiss();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_what_is_typed() {
        let mut keys = Keys::of_terminal();
        let typed: Vec<_> =
            b"a\x01\x01\x01ab\x01q\x01x\x01h".iter().map(|b| keys.typed(*b)).collect();
        let byte = Typed::Byte;
        let none = Typed::Nothing;
        assert_eq!(
            typed,
            [
                byte(b'a'),
                none,
                byte(1),
                none,
                byte(1),
                byte(b'b'),
                none,
                byte(b'q'),
                none,
                Typed::Leave,
                none,
                Typed::Help
            ]
        );
    }

    #[test]
    fn a_pipe_has_no_keys() {
        let mut keys = Keys { terminal: false, prefixed: false };
        assert_eq!(keys.typed(1), Typed::Byte(1));
        assert_eq!(keys.typed(b'x'), Typed::Byte(b'x'));
    }
}
