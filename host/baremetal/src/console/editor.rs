//! A line that a person edits on a serial terminal (ECMA-48 for the keys that send sequences).
//!
//! The line keeps at its end what was typed; there is no moving back within it. Backspace and
//! Ctrl-H take a character, Ctrl-W a word, Ctrl-U the line; Ctrl-C gives it up; Up and Down (or
//! Ctrl-P and Ctrl-N) go through earlier lines; Tab completes.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Bytes of a line.
pub const MAX_LINE: usize = 256;
/// Lines that are remembered.
const MAX_HISTORY: usize = 32;

/// What a byte from the terminal led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Nothing to do.
    None,
    /// A line was entered.
    Line(String),
    /// The line wants to be completed: see [`Editor::complete`].
    Complete,
    /// The line was given up.
    Abandoned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    No,
    Begun,
    Sequence,
}

/// The line and what was before it.
pub struct Editor {
    line: String,
    history: VecDeque<String>,
    /// How far back in the history the line is; 0 is the new line.
    back: usize,
    escape: Escape,
    /// The last byte was a carriage return, so a line feed is part of it.
    after_return: bool,
}

impl Default for Editor {
    fn default() -> Self {
        Self::new()
    }
}

impl Editor {
    /// An empty line.
    pub const fn new() -> Self {
        Self {
            line: String::new(),
            history: VecDeque::new(),
            back: 0,
            escape: Escape::No,
            after_return: false,
        }
    }

    /// What the line is now, to be shown again after something else was printed.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Takes a byte; what the terminal is to show for it goes to `echo`.
    pub fn take(&mut self, byte: u8, echo: &mut dyn FnMut(&str)) -> Event {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        if self.escape != Escape::No {
            self.escaped(byte, echo);
            return Event::None;
        }
        match byte {
            b'\n' if after_return => {}
            b'\r' | b'\n' => return self.enter(echo),
            b'\t' => return Event::Complete,
            3 => {
                echo("^C\n");
                self.line.clear();
                self.back = 0;
                return Event::Abandoned;
            }
            8 | 0x7f => self.erase(1, echo),
            0x15 => self.erase(self.line.len(), echo),
            0x17 => {
                let kept = self.line.trim_end_matches(' ');
                let kept = kept.rfind(' ').map_or(0, |at| at + 1);
                self.erase(self.line.len() - kept, echo);
            }
            0x10 => self.recall(1, echo),
            0xe => self.recall(-1, echo),
            0x1b => self.escape = Escape::Begun,
            b' '..=b'~' => self.add(char::from(byte), echo),
            _ => {}
        }
        Event::None
    }

    fn escaped(&mut self, byte: u8, echo: &mut dyn FnMut(&str)) {
        self.escape = match (self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => Escape::Sequence,
            // Parameters of a sequence.
            (Escape::Sequence, b'0'..=b'?') => Escape::Sequence,
            (Escape::Sequence, b'A') => {
                self.recall(1, echo);
                Escape::No
            }
            (Escape::Sequence, b'B') => {
                self.recall(-1, echo);
                Escape::No
            }
            _ => Escape::No,
        };
    }

    fn enter(&mut self, echo: &mut dyn FnMut(&str)) -> Event {
        echo("\n");
        let line = core::mem::take(&mut self.line);
        self.back = 0;
        if !line.trim().is_empty() && self.history.front() != Some(&line) {
            self.history.truncate(MAX_HISTORY - 1);
            self.history.push_front(line.clone());
        }
        Event::Line(line)
    }

    fn add(&mut self, char: char, echo: &mut dyn FnMut(&str)) {
        if self.line.len() < MAX_LINE {
            self.line.push(char);
            echo(char.encode_utf8(&mut [0; 4]));
        }
    }

    fn erase(&mut self, count: usize, echo: &mut dyn FnMut(&str)) {
        for _ in 0..count {
            if self.line.pop().is_some() {
                echo("\x08 \x08");
            }
        }
    }

    /// Puts another line in place of this one: an older one if `step` is positive.
    fn recall(&mut self, step: isize, echo: &mut dyn FnMut(&str)) {
        let Some(back) = self.back.checked_add_signed(step) else { return };
        if back > self.history.len() {
            return;
        }
        let wanted = match back.checked_sub(1) {
            Some(index) => self.history[index].clone(),
            None => String::new(),
        };
        self.erase(self.line.len(), echo);
        echo(&wanted);
        self.line = wanted;
        self.back = back;
    }

    /// Completes the last word to what all of `words` that begin with it have in common, and a
    /// blank if that is one. Gives the words if there are several and nothing was added.
    pub fn complete<'a>(
        &mut self,
        words: &[&'a str],
        echo: &mut dyn FnMut(&str),
    ) -> alloc::vec::Vec<&'a str> {
        let start = self.line.rfind(' ').map_or(0, |at| at + 1);
        let typed = String::from(&self.line[start..]);
        let fitting: alloc::vec::Vec<&str> =
            words.iter().copied().filter(|word| word.starts_with(&typed[..])).collect();
        let Some(first) = fitting.first() else { return fitting };
        let common = fitting.iter().fold(first.len(), |length, word| {
            let same = word.bytes().zip(first.bytes()).take_while(|(a, b)| a == b).count();
            length.min(same)
        });
        let rest = first.get(typed.len()..common).unwrap_or("");
        let nothing = rest.is_empty();
        rest.chars().for_each(|char| self.add(char, echo));
        if fitting.len() == 1 {
            self.add(' ', echo);
            return alloc::vec::Vec::new();
        }
        if nothing { fitting } else { alloc::vec::Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A terminal that shows what is echoed.
    #[derive(Default)]
    struct Terminal {
        editor: Editor,
        shown: String,
    }

    impl Terminal {
        fn typed(&mut self, text: &str) -> Vec<Event> {
            let shown = &mut self.shown;
            let mut echo = |text: &str| {
                for char in text.chars() {
                    match char {
                        '\x08' => drop(shown.pop()),
                        // The blank that wipes a character is itself gone back over.
                        char => shown.push(char),
                    }
                }
            };
            let events = text.bytes().map(|byte| self.editor.take(byte, &mut echo));
            events.filter(|event| *event != Event::None).collect()
        }
    }

    #[test]
    fn a_line_is_what_is_left_of_it() {
        let mut t = Terminal::default();
        assert_eq!(t.typed("lisx\x7ft\r\n"), [Event::Line("list".into())]);
        assert_eq!(t.typed("start one two\x17\x17 \n"), [Event::Line("start  ".into())]);
        assert_eq!(t.typed("nonsense\x15help\r"), [Event::Line("help".into())]);
        assert_eq!(t.typed("x\x03"), [Event::Abandoned]);
        assert_eq!(t.typed("\x08\x08\x15\x17\r"), [Event::Line(String::new())]);
        assert!(t.shown.ends_with("help\nx^C\n\n"), "{:?}", t.shown);
    }

    #[test]
    fn earlier_lines_come_back() {
        let mut t = Terminal::default();
        t.typed("one\rtwo\rtwo\r\r");
        assert_eq!(t.typed("\x1b[A\r"), [Event::Line("two".into())]);
        assert_eq!(t.typed("\x10\x10\r"), [Event::Line("one".into())]);
        assert_eq!(t.typed("\x1b[A\x1b[A\x1b[B\x1bOB new\r"), [Event::Line(" new".into())]);
        assert_eq!(t.typed("\x1b[B\x1b[1;5C\x1bx!\r"), [Event::Line("!".into())]);
        for _ in 0..100 {
            t.typed("\x10");
        }
        assert_eq!(t.editor.line(), "one");
    }

    #[test]
    fn nothing_grows_without_end() {
        let mut t = Terminal::default();
        t.typed(&"x".repeat(1000));
        assert_eq!(t.editor.line().len(), MAX_LINE);
        for number in 0..100 {
            t.typed(&std::format!("\x15{number}\r"));
        }
        assert_eq!(t.editor.history.len(), MAX_HISTORY);
        assert!(t.typed("\u{e4}\0\x01").is_empty());
    }

    #[test]
    fn tab_completes_what_is_clear() {
        let mut t = Terminal::default();
        let words = ["start", "stats", "stop", "help"];
        assert_eq!(t.typed("he\t"), [Event::Complete]);
        assert!(t.editor.complete(&words, &mut |_| ()).is_empty());
        assert_eq!(t.editor.line(), "help ");
        t.typed("\x15x s");
        assert!(t.editor.complete(&words, &mut |_| ()).is_empty());
        assert_eq!(t.editor.line(), "x st");
        assert_eq!(t.editor.complete(&words, &mut |_| ()), ["start", "stats", "stop"]);
        t.typed("q");
        assert!(t.editor.complete(&words, &mut |_| ()).is_empty());
        assert_eq!(t.editor.line(), "x stq");
    }
}
